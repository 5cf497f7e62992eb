"""The axes of vmap's arguments: one for each leaf, checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np

from polyop import tree
from polyop.errors import VmapError
from polyop.layers.rows import taken_apart
from polyop.ops.joining import concat
from polyop.ops.views import slice_axis
from polyop.tensor.tensor import Tensor, of_array


class Asked(Protocol):
    """What of a vmap's options is read here."""

    @property
    def func(self) -> Callable[..., Any]:
        """The mapped function."""

    @property
    def in_dims(self) -> Any:
        """The axes of the arguments."""


class Path(NamedTuple):
    """The way to a leaf, which is spelled only where an error names it.

    Attributes:
        start: the way to the tree that the leaf is in.
        values: the tree.
        number: which of its leaves it is.
    """

    start: str
    values: Any
    number: int

    def __str__(self) -> str:
        return self.start + tree.paths(self.values)[self.number]


@dataclass(frozen=True, slots=True)
class Input:
    """A leaf of the arguments, its axis from 0 or None, and its path."""

    value: Any
    axis: int | None
    path: Path


def spread_inputs(spec: Asked, args: tuple[Any, ...]) -> tuple[list[Input], tree.TreeSpec]:
    """Give each leaf of the arguments its axis.

    Raises:
        VmapError: `in_dims` does not fit the arguments, or an axis is out of range.
    """
    if not args:
        _refuse("vmap needs an argument to map over", fix="give a positional argument")
    leaves, structure = tree.flatten(args)
    dims = tuple(spec.in_dims) if isinstance(spec.in_dims, list) else spec.in_dims
    pairs = list(spread(dims, args, "", "in_dims"))
    inputs = [
        _input(spec, leaf, dim, path) for leaf, (dim, path) in zip(leaves, pairs, strict=True)
    ]
    if all(x.axis is None for x in inputs):
        _refuse(
            "vmap has nothing to map over",
            declared=f"in_dims={spec.in_dims!r}",
            seen="no Tensor with an axis",
            fix="give in_dims an axis for some argument",
        )
    return inputs, structure


def spread(dims: Any, values: Any, path: str, what: str) -> Iterator[tuple[Any, Path]]:
    """Give the axis and the path of each leaf of `values`; `dims` is a tree above it.

    Raises:
        VmapError: the structures do not fit.
    """
    if dims is None or type(dims) is int:
        for i in range(len(taken_apart(values)[0])):
            yield dims, Path(path, values, i)
        return
    names, parts = tree.children(values)
    dim_names, dim_parts = tree.children(dims)
    if parts is None or type(dims) is not type(values) or names != dim_names:
        _refuse(
            f"the structure of {what} does not fit",
            argument=path or "all",
            declared=f"{what} {dims!r}",
            seen=tree.outline(values),
            fix=f"write {what} as a number, None, or with the same containers",
        )
    for name, dim, part in zip(names, dim_parts or (), parts, strict=True):
        yield from spread(dim, part, f"{path}[{name!r}]", what)


def _names(func: Callable[..., Any], n: int) -> list[str]:
    try:
        parameters = [
            p.name
            for p in inspect.signature(func).parameters.values()
            if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}
        ]
    except (TypeError, ValueError):
        parameters = []
    return [*parameters[:n], *(f"args[{i}]" for i in range(len(parameters), n))]


def where(spec: Asked, path: Path) -> str:
    """Name a leaf of the arguments by its parameter and place; for errors."""
    head, _, rest = str(path)[1:].partition("]")
    names = _names(spec.func, int(head) + 1)
    return f"{names[int(head)]}{rest} (position {head})"


def _input(spec: Asked, leaf: Any, dim: int | None, path: Path) -> Input:
    if isinstance(leaf, np.ndarray):
        leaf = of_array(leaf)
    if dim is None:
        return Input(leaf, None, path)
    if not isinstance(leaf, Tensor):
        _refuse(
            "vmap maps over the axis of a Tensor, and this argument is none",
            argument=where(spec, path),
            declared=f"in_dims {dim}",
            seen=f"{leaf!r:.80} ({type(leaf).__name__})",
            fix="pass None in in_dims for this argument, or a tensor",
        )
    rank = len(leaf.payload.shape)
    if not -rank <= dim < rank:
        with_axes = f"give an axis from {-rank} to {rank - 1}"
        _refuse(
            "vmap maps over an axis that the argument does not have",
            argument=where(spec, path),
            declared=f"in_dims {dim}",
            seen=f"shape {leaf.shape}",
            fix=with_axes if rank else "pass None in in_dims for a tensor without axes",
        )
    return Input(leaf, dim % rank, path)


def batch_size(spec: Asked, inputs: Sequence[Input]) -> Any:
    """Give the one size of the mapped axes.

    Raises:
        VmapError: two sizes differ.
    """
    mapped = [x for x in inputs if x.axis is not None]
    first = mapped[0]
    size = first.value.payload.shape[first.axis]
    for x in mapped[1:]:
        other = x.value.payload.shape[x.axis]
        if other is not size and other != size:
            _refuse("vmap maps over axes of different sizes", argument=where(spec, x.path),
                    declared=f"size {size}, as axis {first.axis} of {where(spec, first.path)} has",
                    seen=f"size {other} at axis {x.axis} of shape {x.value.shape}",
                    fix="make the sizes equal, or correct in_dims")  # fmt: skip
    return size


def _refuse(problem: str, **parts: Any) -> NoReturn:
    raise VmapError(problem, **parts)


# -- chunks -------------------------------------------------------------------


def take(x: Input, start: int, stop: int) -> Input:
    """Give some of the samples of an input."""
    if x.axis is None:
        return x
    return replace(x, value=slice_axis(x.value, x.axis, start, stop))


def join_chunks(out_dims: Any, outs: Sequence[Any]) -> Any:
    """Put the results of chunks together along their batch axes."""
    if len(outs) == 1:
        return outs[0]
    columns = zip(*[tree.leaves(out) for out in outs], strict=True)
    dims = [dim for dim, _ in spread(out_dims, outs[0], "", "out_dims")]
    joined = [
        column[0] if dim is None else concat(list(column), axis=dim)
        for column, dim in zip(columns, dims, strict=True)
    ]
    return tree.unflatten(tree.structure(outs[0]), joined)
