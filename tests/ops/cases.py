"""Calls of reductions, products, searches and linear algebra, with PyTorch's answer beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import polyop.assembly  # noqa: F401
from polyop.ops import (  # noqa: F401
    differences,
    factorizations,
    fourier,
    linalg,
    matrices,
    sets,
    statistics,
)
from polyop.ops.define import ON_TENSORS, operator_of

Fn = Callable[..., Any]
A34 = (3, 4)
A234 = (2, 3, 4)


@dataclass(frozen=True)
class Case:
    """One call: shapes stand for arrays, `Given` for arrays themselves, all else for itself.

    `oracle` takes torch tensors for the arrays only; `make` turns noise into valid input.
    """

    name: str
    args: tuple[Any, ...]
    oracle: Fn | None = None
    make: Fn | None = None

    @property
    def op(self) -> Any:
        return operator_of(ON_TENSORS[self.name])

    def values(self, seed: int = 0, dtype: str = "float64") -> list[Any]:
        """Make the arguments."""
        rng = np.random.default_rng(seed)
        return [self._value(a, t, rng, dtype) for a, t in zip(self.args, self._types, strict=True)]

    @property
    def _types(self) -> list[str]:
        return [str(a.type) for a in self.op._schema.arguments]

    def _value(self, arg: Any, kind: str, rng: Any, dtype: str) -> Any:
        if not kind.startswith("Tensor") or arg is None or isinstance(arg, list):
            return arg.copy() if isinstance(arg, np.ndarray) else arg
        if isinstance(arg, np.ndarray):
            return arg.copy()
        x = np.asarray(rng.normal(size=arg))
        if dtype.startswith("complex"):
            x = x + 1j * rng.normal(size=arg)
        x = np.asarray(x).astype(dtype)
        return self.make(x) if self.make else x

    def __str__(self) -> str:
        shown = [f"i{a.shape}" if isinstance(a, np.ndarray) else str(a) for a in self.args]
        return f"{self.name}({','.join(shown)})"


def _all_axes(x: Any, axis: Any) -> Any:
    return tuple(range(x.ndim)) if axis is None else tuple(axis)


def _reductions(name: str, oracle: Fn, *middle: Any) -> list[Case]:
    shapes = [((5,), None), ((), None), (A34, [1]), (A234, [0, -1]), (A234, [1]), (A234, None)]
    return [
        Case(
            name,
            (shape, axis, *middle, keep),
            lambda x, axis=axis, keep=keep: oracle(x, _all_axes(x, axis), keep),
        )
        for shape, axis in shapes
        for keep in (False, True)
    ]


def _torch_prod(x: Any, axes: Any, keep: bool) -> Any:
    for axis in sorted([a % x.ndim for a in axes], reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _spd(x: Any) -> Any:
    return x @ x.conj().swapaxes(-1, -2) + 3 * np.eye(x.shape[-1], dtype=x.dtype)


def _with_zeros(x: Any) -> Any:
    flat = x.copy().reshape(-1)
    flat[1:3] = 0
    return flat.reshape(x.shape)


def _complex(x: Any) -> Any:
    return x * (1 + 0.5j)


INDEX = np.array([[0, 2, 2], [1, 1, 0], [3, 0, 1]])
SMOOTH = [
    *_reductions("sum", lambda x, a, k: torch.sum(x, a, k), None),
    *_reductions("mean", lambda x, a, k: torch.mean(x, a, k)),
    *_reductions("max", lambda x, a, k: torch.amax(x, a, k)),
    *_reductions("min", lambda x, a, k: torch.amin(x, a, k)),
    *_reductions("prod", _torch_prod, None),
    *_reductions("logsumexp", lambda x, a, k: torch.logsumexp(x, a, k)),
    *_reductions("norm2", lambda x, a, k: torch.linalg.vector_norm(x, 2, a, k)),
    *[
        Case(name, (shape, axis, c, k), lambda x, f=f, axis=axis, c=c, k=k: f(
            x, _all_axes(x, axis), correction=c, keepdim=k))
        for name, f in (("var", torch.var), ("std", torch.std))
        for shape, axis in (((5,), None), (A34, [1]), (A234, [0, -1]))
        for c in (0.0, 1.0, 0.5)
        for k in (False, True)
    ],
    Case("prod", (A34, [1], None, False), lambda x: x.prod(1), _with_zeros),
    Case("prod_others", (A34, [1]), None, _with_zeros),
    Case("prod_others", (A234, [0, 2])),
    *[Case(n, (A234, axis), lambda x, f=f, axis=axis: f(x, axis))
      for n, f in (("softmax", torch.softmax), ("log_softmax", torch.log_softmax))
      for axis in (-1, 0, 1)],
    *[Case("cumulative_sum", (A234, axis, None, False), lambda x, axis=axis: x.cumsum(axis))
      for axis in (0, -1)],
    *[Case("cumulative_prod", (A34, axis, None, False), lambda x, axis=axis: x.cumprod(axis), make)
      for axis in (0, -1) for make in (None, _with_zeros)],
    Case("cumulative_sum", ((4,), None, None, True),
         lambda x: torch.cat([torch.zeros(1, dtype=x.dtype), x.cumsum(0)])),
    Case("cumulative_prod", (A34, 1, None, True),
         lambda x: torch.cat([torch.ones(3, 1, dtype=x.dtype), x.cumprod(1)], 1)),
    Case("suffix_sum", (A34, 1, None, True)),
    Case("suffix_sum", ((4,), None, None, False)),
    Case("spread", ((3,), [3, 4], [1], False, None)),
    Case("spread", ((3, 1), [3, 4], [1], True, None)),
    Case("spread", ((), [3, 4], None, False, None)),
    Case("mean_grad", ((3,), [3, 4], [1], False)),
    Case("mean_grad", ((1, 1), [3, 4], None, True)),
    Case("deviation", (A34, [1], 1.0)),
    Case("deviation", (A34, None, 0.0)),
    *[Case("matmul", pair, torch.matmul) for pair in (
        ((3,), (3,)), ((3, 4), (4,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((2, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)), ((5, 1, 2, 3), (2, 3, 4)), ((3,), (5, 3, 4)), ((5, 2, 3), (3,)))],
    *[Case("matmul_left", args) for args in (
        ((), (3,), [3]), ((3,), (4,), [3, 4]), ((4,), (3, 4), [3]), ((2, 4), (3, 4), [2, 3]),
        ((5, 2, 4), (5, 3, 4), [2, 3]), ((5, 4), (5, 3, 4), [3]), ((5, 2), (3,), [5, 2, 3]))],
    *[Case("matmul_right", args) for args in (
        ((3,), (), [3]), ((3, 4), (3,), [4]), ((3,), (4,), [3, 4]), ((2, 3), (2, 4), [3, 4]),
        ((5, 2, 3), (5, 2, 4), [3, 4]), ((5, 2, 3), (5, 2), [3]), ((3,), (5, 4), [5, 3, 4]))],
    Case("vecdot", ((3,), (3,), -1), torch.linalg.vecdot),
    Case("vecdot", ((2, 3, 4), (3, 1), -2), lambda a, b: torch.linalg.vecdot(a, b, dim=-2)),
    Case("take_along_axis", (A34, INDEX, 1),
         lambda x: torch.take_along_dim(x, torch.tensor(INDEX), 1)),
    Case("take_along_axis", (A34, INDEX[:1], -1),
         lambda x: torch.take_along_dim(x, torch.tensor(INDEX[:1]), -1)),
    Case("scatter_along_axis", ((3, 3), INDEX, [3, 4], 1)),
    Case("put_along_axis", (A34, INDEX[:, :1], (3, 1), 1),
         lambda x, v: x.scatter(1, torch.tensor(INDEX[:, :1]), v)),
    *[Case("sort", (A234, axis, down, True), lambda x, axis=axis, down=down: x.sort(
        axis, descending=down).values) for axis in (0, 1, -1) for down in (False, True)],
    Case("inv", ((2, 3, 3),), torch.linalg.inv, _spd),
    Case("det", ((3, 3),), torch.linalg.det),
    Case("det", ((2, 3, 3),), torch.linalg.det),
    Case("cofactors", ((3, 3), [])),
    *[Case("solve_matrix", pair, torch.linalg.solve) for pair in (
        ((3, 3), (3, 2)), ((2, 3, 3), (2, 3, 2)), ((3, 3), (2, 3, 2)), ((2, 3, 3), (3, 2)))],
    Case("half_tril", ((3, 3),)),
    Case("hermitian_part", ((3, 3),)),
    Case("cholesky_lower", ((2, 3, 3),), torch.linalg.cholesky, _spd),
    *[Case("svdvals", (shape,), torch.linalg.svdvals) for shape in ((3, 3), A234, (4, 2))],
    *[Case("eigvalsh", (shape,), lambda x: torch.linalg.eigvalsh((x + x.mH) / 2))
      for shape in ((3, 3), (2, 3, 3))],
    *[Case("pinv", (shape, None), torch.linalg.pinv) for shape in ((3, 3), A234, (2, 4, 3))],
    *[Case("fft_c2c", (A234, axes, scaling, True),
           lambda x, axes=axes, norm=norm: torch.fft.fftn(x, dim=axes, norm=norm), _complex)
      for axes, scaling, norm in (
          ([0, -1], "none", "backward"), ([1], "ortho", "ortho"), ([1, 0], "full", "forward"))],
    Case("fft_c2c", (A34, [1], "full", False), lambda x: torch.fft.ifft(x), _complex),
    *[Case("fft_r2c", (A234, axis, scaling), lambda x, axis=axis, norm=norm: torch.fft.rfft(
        x, dim=axis, norm=norm)) for axis, scaling, norm in (
          (-1, "none", "backward"), (1, "ortho", "ortho"), (0, "full", "forward"))],
    *[Case("fft_c2r", (A234, axis, n, scaling), lambda x, axis=axis, n=n, norm=norm:
           torch.fft.irfft(x, n, axis, norm), _complex) for axis, n, scaling, norm in (
          (-1, 6, "full", "backward"), (-1, 7, "ortho", "ortho"), (1, 4, "none", "forward"))],
]  # fmt: skip

#: Operators without gradients, and those whose result is more than one tensor.
OTHER = [
    *[Case(n, (shape, axis, k), lambda x, f=f, axis=axis, k=k: f(x, axis, k))
      for n, f in (("argmax", torch.argmax), ("argmin", torch.argmin))
      for shape, axis in ((A234, 1), (A234, -1), ((5,), None), ((5,), 0)) for k in (False, True)],
    Case("argmax", (A234, None, False), lambda x: x.argmax()),
    Case("argmax", (A234, None, True)),
    *[Case(n, (A234, axis, False), lambda x, f=f, axis=axis: f(x, _all_axes(x, axis)), np.round)
      for n, f in (("any", torch.any), ("all", torch.all), ("count_nonzero", torch.count_nonzero))
      for axis in (None, [0], [1, -1])],
    *[Case("argsort", (A234, axis, down, True), lambda x, axis=axis, down=down: torch.argsort(
        x, dim=axis, descending=down, stable=True), np.round)
      for axis in (0, 1, -1) for down in (False, True)],
    *[Case("topk", (A234, 2, axis, big, True), lambda x, axis=axis, big=big: tuple(x.topk(
        2, axis, big))) for axis in (0, 1, -1) for big in (False, True)],
    *[Case("searchsorted", (np.arange(5.0) - 2, A34, side, None),
           lambda x, side=side: torch.searchsorted(
               torch.arange(5.0, dtype=x.dtype) - 2, x, side=side), np.round)
      for side in ("left", "right")],
    Case("peaks", (A34, (3,), [1], False)),
    Case("peaks", (A34, (3, 1), [1], True)),
    Case("prod_pairs", (A34, A34, [1])),
    Case("running_prod_grad", (A34, A34, 1, False)),
    *[Case("svd", (shape, full)) for shape in ((3, 3), A234) for full in (False, True)],
    Case("eigh", ((2, 3, 3),)),
    *[Case("qr", (shape, mode)) for shape in (A234, (4, 2)) for mode in ("reduced", "complete")],
    Case("slogdet", ((2, 3, 3),)),
    *[Case("among", (A34, (5,), invert), None, np.round) for invert in (False, True)],
    Case("among", (A34, (2, 2), False), None, np.round),
]  # fmt: skip
CASES = [*SMOOTH, *OTHER]


def arrays_in(values: list[Any], case: Case) -> list[int]:
    """Give the positions of the arguments that are noise, not indices."""
    return [
        i
        for i, v in enumerate(values)
        if isinstance(v, np.ndarray) and not isinstance(case.args[i], np.ndarray)
    ]
