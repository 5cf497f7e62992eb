"""PyTorch's samples as calls of ours: trees of arguments, with tensors at their leaves."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from tests.opinfo.reasons import Reason, skip

import polyop
from polyop.tensor.tensor import Tensor, of_array

Fn = Callable[..., Any]
SEED = 20


@cache
def op_db() -> dict[str, list[Any]]:
    """Give PyTorch's published operators by name, each with its variants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db as published
    by_name: dict[str, list[Any]] = {}
    for info in published:
        by_name.setdefault(info.name, []).append(info)
    return by_name


def mapped(fn: Fn, tree: Any) -> Any:
    """Apply a function to the leaves of lists, tuples, dicts and slices."""
    if isinstance(tree, list):
        return [mapped(fn, t) for t in tree]
    if isinstance(tree, tuple):
        return tuple(mapped(fn, t) for t in tree)
    if isinstance(tree, dict):
        return {k: mapped(fn, t) for k, t in tree.items()}
    if isinstance(tree, slice):
        return slice(*(mapped(fn, t) for t in (tree.start, tree.stop, tree.step)))
    return fn(tree)


def leaves(tree: Any) -> list[Any]:
    """List the leaves of a tree."""
    found: list[Any] = []
    mapped(found.append, tree)
    return found


DTYPES = {
    getattr(torch, name): np.dtype(name)
    for name in (
        "float16", "float32", "float64", "complex64", "complex128", "bool", "uint8", "int8",
        "int16", "int32", "int64",
    )
}  # fmt: skip


def to_array(x: torch.Tensor) -> np.ndarray[Any, Any]:
    """Give a copy of a tensor's elements, in the same order in memory."""
    if x.layout is not torch.strided:
        skip(Reason.FORM)
    if x.dtype not in DTYPES:
        skip(Reason.DTYPE)
    x = torch.zeros(x.shape, dtype=x.dtype) if x._is_zerotensor() else x.detach()
    array = x.resolve_conj().resolve_neg().numpy()
    if array.strides and 0 in array.strides:
        return array
    # With the same strides, gaps included: NumPy's own copies would close them.
    size = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
    if not array.size:
        return np.empty(array.shape, array.dtype)
    memory = np.zeros(size // array.itemsize + 1, array.dtype)
    like = np.lib.stride_tricks.as_strided(memory, array.shape, array.strides)
    like[...] = array
    return like


def to_ours(leaf: Any) -> Any:
    """Convert a leaf of PyTorch's to one of ours."""
    if isinstance(leaf, torch.Tensor):
        return of_array(to_array(leaf))
    if isinstance(leaf, torch.dtype):
        return DTYPES[leaf] if leaf in DTYPES else skip(Reason.DTYPE)
    if isinstance(leaf, torch.device):
        return str(leaf) if leaf.type == "cpu" else skip(Reason.FORM)
    if leaf is torch.preserve_format:
        return None  # what is so anyway
    if isinstance(leaf, torch.layout | torch.memory_format | torch.Generator):
        skip(Reason.ARGUMENT)
    return leaf


def to_theirs(leaf: Any) -> Any:
    """Convert a leaf of ours to one of PyTorch's."""
    if isinstance(leaf, Tensor):
        array = leaf.numpy(force=True)
        return torch.from_numpy(np.array(array)) if array.dtype.name != "object" else leaf
    return leaf


@dataclass(frozen=True)
class Sample:
    """One published call: the tree of its arguments, with tensors numbered out of it."""

    args: Any
    kwargs: Any
    tensors: tuple[torch.Tensor, ...]

    @staticmethod
    def of(sample: Any) -> Sample:
        """Take a published sample apart."""
        tensors: list[torch.Tensor] = []

        def number(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            tensors.append(leaf)
            return _Place(len(tensors) - 1)

        args = mapped(number, (sample.input, *sample.args))
        kwargs = mapped(number, dict(sample.kwargs))
        return Sample(args, kwargs, tuple(tensors))

    def theirs(self, fn: Fn, tensors: Any) -> Any:
        """Call an operator of PyTorch with other tensors."""
        return self._call(fn, tensors, lambda leaf: leaf)

    def ours(self, fn: Fn, tensors: Any) -> Any:
        """Call an operator of ours with tensors of ours."""
        return self._call(fn, tensors, to_ours)

    def _call(self, fn: Fn, tensors: Any, other: Fn) -> Any:
        def leaf(x: Any) -> Any:
            return tensors[x.number] if isinstance(x, _Place) else other(x)

        return fn(*mapped(leaf, self.args), **mapped(leaf, self.kwargs))

    def differentiable(self) -> list[int]:
        """Give the numbers of the tensors to differentiate by."""
        return [i for i, t in enumerate(self.tensors) if t.requires_grad]

    def __str__(self) -> str:
        def show(x: Any) -> Any:
            if not isinstance(x, _Place):
                return repr(x)
            t = self.tensors[x.number]
            return f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}/{list(t.stride())}"

        return f"({mapped(show, self.args)}, {mapped(show, self.kwargs)})".replace('"', "")


@dataclass(frozen=True)
class _Place:
    number: int


def samples(info: Any, dtype: torch.dtype, *, requires_grad: bool = False) -> Iterator[Sample]:
    """Make the published samples of an operator, always the same."""
    torch.default_generator.manual_seed(SEED)
    np.random.seed(SEED)
    random.seed(SEED)
    # The function itself: `sample_inputs` seeds anew, and looks at the stack, for each sample.
    for sample in info.sample_inputs_func(info, "cpu", dtype, requires_grad):
        yield Sample.of(sample)


def results(out: Any, kind: type) -> list[Any]:
    """List the tensors (or plain values) of a result."""
    return [x for x in leaves(out) if isinstance(x, kind)]


__all__ = ["DTYPES", "Sample", "op_db", "polyop", "results", "samples", "to_ours", "to_theirs"]
