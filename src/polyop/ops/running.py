"""Running sums and products: every step of a reduction from the left, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.errors import ArgumentError
from polyop.ops.axes import HALF, SINGLE, along_vmap, dtype_rule, is_half, on_one, same_order
from polyop.ops.define import define
from polyop.ops.formulas import Built, formula
from polyop.ops.shapes import normal_axis
from polyop.ops.signatures import announce
from polyop.ops.view_inverses import in_front
from polyop.tensor.meta import Meta

Fn = Callable[..., Any]
Array = Any


def running(name: str, ufunc: np.ufunc) -> Fn:
    """Give the kernel that folds from the left and keeps every step."""
    fold, first = ufunc.accumulate, ufunc.identity

    def kernel(
        x: Array,
        axis: int | None = None,
        dtype: DType | None = None,
        include_initial: bool = False,
    ) -> Array:
        at = _only_axis(name, x.ndim, axis, include_initial)
        if (x if dtype is None else dtype).itemsize <= HALF:
            kept = x.dtype if dtype is None else dtype
            if is_half(kept):
                return kernel(x.astype(kept, copy=False), at, SINGLE, include_initial).astype(kept)
        if not include_initial:
            return fold(x, at, dtype) if x.ndim else on_one(name, kernel, x, at, dtype)
        dtype = fold(x[(slice(0),) * x.ndim], at, dtype).dtype
        shape = [n + (i == at) for i, n in enumerate(x.shape)]
        result = np.full(shape, first, dtype)
        fold(x, at, dtype, result[(slice(None),) * at + (slice(1, None),)])
        return result

    return kernel


def _only_axis(name: str, ndim: int, axis: int | None, longer: bool = False) -> int:
    """Give the axis as a number from 0; only one-dimensional arrays need not name it."""
    if longer and not ndim:
        raise ArgumentError(
            f"core::{name} with include_initial makes an axis longer, and there is none",
            op=f"core::{name}",
            seen="shape ()",
        )
    if axis is None and ndim != 1:
        raise ArgumentError(
            f"core::{name} needs an axis",
            op=f"core::{name}",
            argument="axis",
            seen=f"None for {ndim} axes",
            fix="give axis=",
        )
    return normal_axis(name, axis or 0, ndim)


def _running_fake(name: str, kernel: Fn) -> Fn:
    dtype_of = dtype_rule(lambda x, _, dtype, __: kernel(x, 0, dtype))

    def fake(
        x: Meta, axis: int | None, dtype: DType | None = None, include_initial: bool = False
    ) -> Meta:
        at = _only_axis(name, x.ndim, axis, include_initial)
        found = dtype_of(x.dtype, dtype)
        if not include_initial:
            return same_order(x, found)
        shape = tuple([n + 1 if i == at else n for i, n in enumerate(x.shape)])
        return x.space.meta(shape, found, None, x.device)

    return fake


def _running_vmap(name: str) -> Fn:
    """Give the batching rule of `(x, axis, dtype, longer or shorter)`."""
    along = along_vmap(name)

    def batched(info: Any, in_dims: Sequence[Any], x: Any, axis: int | None, *rest: Any) -> Any:
        return along(info, in_dims, x, _only_axis(name, x.ndim - 1, axis, rest[-1]), *rest)

    return batched


def _running(name: str, kernel: Fn, grad: str) -> Fn:
    return define(
        f"{name}(Tensor x, *, int? axis=None, ScalarType? dtype=None, "
        "bool include_initial=False) -> Tensor",
        kernel,
        fake=_running_fake(name, kernel),
        grad={"x": grad},
        vmap=_running_vmap(name),
    )


cumulative_sum_kernel = running("cumulative_sum", np.add)
cumulative_prod_kernel = running("cumulative_prod", np.multiply)


def suffix_sum_kernel(
    x: Array, axis: int | None = None, dtype: DType | None = None, skip_first: bool = False
) -> Array:
    """Sum from each element to the end: the gradient of the running sum."""
    at = _only_axis("cumulative_sum", x.ndim, axis)
    if not x.ndim:
        return on_one("suffix_sum", suffix_sum_kernel, x, at, dtype)
    wide = SINGLE if is_half(x.dtype) else None
    sums = np.flip(np.add.accumulate(np.flip(x, at), at, wide), at)
    if skip_first:
        sums = sums[(slice(None),) * at + (slice(1, None),)]
    if dtype is not None and sums.dtype.kind == "c" != dtype.kind:
        sums = sums.real
    return np.array(sums, x.dtype if dtype is None else dtype, order="C")


def suffix_sum_fake(x: Meta, axis: int | None, dtype: DType | None, skip_first: bool) -> Meta:
    """Describe the sums."""
    at = _only_axis("cumulative_sum", x.ndim, axis)
    shape = tuple([n - 1 if skip_first and i == at else n for i, n in enumerate(x.shape)])
    return x.space.meta(shape, x.dtype if dtype is None else dtype, None, x.device)


def running_prod_grad_kernel(
    given: Array, x: Array, axis: int | None = None, include_initial: bool = False
) -> Array:
    """Give the gradient of the running product, zeros included: one sum per element."""
    at = _only_axis("cumulative_prod", x.ndim, axis)
    if not x.ndim:
        return np.array(given.reshape(()), x.dtype)
    if is_half(x.dtype):
        single = given.astype(SINGLE), x.astype(SINGLE)
        return running_prod_grad_kernel(*single, axis, include_initial).astype(x.dtype)
    given, moved = np.moveaxis(given, at, -1), np.moveaxis(x, at, -1)
    given = given[..., 1:] if include_initial else given
    result = np.empty(moved.shape, np.result_type(given, x))
    for k in range(moved.shape[-1]):
        rest = moved.copy()
        rest[..., k] = 1
        steps = np.multiply.accumulate(rest, -1)[..., k:]
        result[..., k] = np.add.reduce(given[..., k:] * steps.conj(), -1)
    return np.moveaxis(result, -1, at).astype(x.dtype, order="C")


def running_prod_grad_fake(given: Meta, x: Meta, axis: int | None, include_initial: bool) -> Meta:
    """Describe the gradient."""
    return x.but(strides=None)


suffix_sum = define(
    "suffix_sum(Tensor x, *, int? axis=None, ScalarType? dtype=None, "
    "bool skip_first=False) -> Tensor",
    suffix_sum_kernel,
    fake=suffix_sum_fake,
    grad={"x": "cumulative_sum(g, axis=axis, dtype=x.dtype, include_initial=skip_first)"},
    vmap=_running_vmap("suffix_sum"),
)


@formula
def running_prod_push(of: Built, g: Any, x: Any, axis: int | None, initial: bool) -> Any:
    """Give the gradient of `running_prod_grad` by what it was given."""
    at, (_, steps) = axis or 0, _steps(of, x, axis)
    if not x.shape:
        return g
    found = of.sum(of.expand_dims(of.moveaxis(g, at, -1), -1) * steps, axis=[-2])
    if initial:
        found = of.pad(found, [0] * (len(x.shape) - 1) + [1], [0] * len(x.shape), 0)
    return of.moveaxis(found, -1, at)


@formula
def running_prod_bend(  # noqa: PLR0917 - a rule has its operator's arguments
    of: Built, g: Any, given: Any, x: Any, axis: int | None, initial: bool
) -> Any:
    """Give the gradient of `running_prod_grad` by the factors."""
    if not x.shape:
        return g * 0
    at, (without, _) = axis or 0, _steps(of, x, axis)
    g, given = of.moveaxis(g, at, -1), of.moveaxis(given, at, -1)
    if initial:
        given = of.slice(given, -1, 1, None, 1)
    weights = of.triu(of.expand_dims(of.conj(g), -1) * of.expand_dims(given, -2), 0)
    each = of.running_prod_grad(weights, without, -1, False)
    found = of.sum(of.tril(each, -1) + of.triu(each, 1), axis=[-2])
    return of.moveaxis(found, -1, at)


def _steps(of: Built, x: Any, axis: int | None) -> tuple[Any, Any]:
    """Give rows of factors, row k with a one in place k, and their running products from k on."""
    if not x.shape:
        return x, x
    row = of.expand_dims(of.moveaxis(x, axis or 0, -1), -2)
    ones = of.ones_like(row) * of.ones_like(of.matrix_transpose(row))
    without = of.tril(row * ones, -1) + of.triu(row * ones, 1) + of.tril(of.triu(ones, 0), 0)
    return without, of.triu(of.cumulative_prod(without, axis=-1), 0)


def running_prod_grad_vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
    """Give the gradient for each element of a batch."""
    given, x, axis, initial = args
    given, x = (in_front(info, d, v) for d, v in zip(in_dims, (given, x), strict=False))
    at = _only_axis("cumulative_prod", x.ndim - 1, axis)
    if x.ndim == 1:
        return given, 0
    return running_prod_grad(given, x, at + 1, initial), 0


running_prod_grad: Fn = define(
    "running_prod_grad(Tensor given, Tensor x, int? axis=None, "
    "bool include_initial=False) -> Tensor",
    running_prod_grad_kernel,
    fake=running_prod_grad_fake,
    grad={
        "given": "running_prod_push(g, x, axis, include_initial)",
        "x": "running_prod_bend(g, given, x, axis, include_initial)",
    },
    vmap=running_prod_grad_vmap,
)
cumulative_sum = _running(
    "cumulative_sum",
    cumulative_sum_kernel,
    "suffix_sum(g, axis=axis, dtype=x.dtype, skip_first=include_initial)",
)
cumulative_prod = _running(
    "cumulative_prod",
    cumulative_prod_kernel,
    "running_prod_grad(g, kind_of(x, r.dtype), axis, include_initial)",
)

announce(globals())
