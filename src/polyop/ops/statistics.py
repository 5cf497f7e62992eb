"""Statistics, and what normalises along an axis: mean, variance, softmax, running sums.

A deviation from the mean is linear and its own adjoint, so `deviation` serves
the gradient of the variance, and the gradient of that one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.errors import ArgumentError
from polyop.ops.axes import (
    Axes,
    along_vmap,
    batch_first,
    call,
    count,
    dtype_rule,
    names_no_axis,
    normal_axes,
    past,
    real_axis,
    reduced,
    refuse,
    same_order,
)
from polyop.ops.define import define
from polyop.ops.reductions import reduction, reduction_fake, sum_kernel
from polyop.tensor.meta import Meta, Shape
from polyop.tensor.tensor import is_floating

Fn = Callable[..., Any]
Array = Any


def wide(dtype: DType) -> DType | None:
    """Give the dtype in which sums are kept: half precision would lose too much."""
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    return np.dtype(np.float32) if dtype.itemsize <= 2 else None


def mean_kernel(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """Average the elements."""
    dtype = wide(x.dtype)
    total = sum_kernel(x, axis, dtype, keepdims)
    n = x.size if axis is None else count(x.shape, normal_axes("mean", axis, x.ndim))
    found = total / n
    return found.astype(x.dtype) if dtype is not None and is_floating(x.dtype) else found


def mean_grad_kernel(
    x: Array, shape: Sequence[int], axis: Axes = None, keepdims: bool = False
) -> Array:
    """Share each gradient among the elements that were averaged."""
    result = np.empty(shape, x.dtype)
    axes = normal_axes("mean", axis, result.ndim)
    if not keepdims and x.shape:
        x = x.reshape([1 if i in axes else n for i, n in enumerate(result.shape)])
    result[...] = x / max(count(result.shape, axes), 1)
    return result


def mean_grad_vmap(
    info: Any, in_dims: Sequence[Any], x: Any, shape: Sequence[Any], *rest: Any
) -> Any:
    """Share in each element of a batch."""
    axis, keepdims = rest
    axes = [a + 1 for a in normal_axes("mean", axis, len(shape))]
    x = batch_first(x, in_dims[0])
    return call("mean_grad", x, [x.shape[0], *shape], axes, keepdims), 0


def mean_grad_fake(x: Meta, shape: Shape, axis: Axes, keepdims: bool) -> Meta:
    """Describe the shares."""
    return x.but(shape=tuple(shape), strides=None)


mean_grad = define(
    "mean_grad(Tensor x, SymInt[] shape, int[1]? axis=None, bool keepdims=False) -> Tensor",
    mean_grad_kernel,
    fake=mean_grad_fake,
    grad={"x": "mean_or_zero(g, axis, keepdims)"},
    vmap=mean_grad_vmap,
)
mean = reduction("mean", mean_kernel, "mean_grad(g, x.shape, axis, keepdims)")


def mean_or_zero_kernel(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """Average the elements, or give zero where there are none: the adjoint of `mean_grad`."""
    return (mean_kernel if x.size else sum_kernel)(x, axis, keepdims=keepdims)


mean_or_zero = reduction(
    "mean_or_zero", mean_or_zero_kernel, "mean_grad(g, x.shape, axis, keepdims)"
)


# -- variance -----------------------------------------------------------------


def deviation_kernel(x: Array, axis: Axes = None, correction: float = 0.0) -> Array:
    """Give `2 (x - mean) / (n - correction)`."""
    n = count(x.shape, normal_axes("var", axis, x.ndim)) - correction
    return (x - mean_kernel(x, axis, True)) * (2 / n if n > 0 else np.nan)


def deviation_vmap(info: Any, in_dims: Sequence[Any], x: Any, axis: Axes, correction: float) -> Any:
    """Deviate from the mean of each element of a batch."""
    dim = in_dims[0]
    axes = [past(a, dim) for a in normal_axes("var", axis, x.ndim - 1)]
    return call("deviation", x, axes, correction), dim


def deviation_fake(x: Meta, axis: Axes, correction: float) -> Meta:
    """Describe the deviations."""
    return same_order(x, x.dtype)


deviation = define(
    "deviation(Tensor x, int[1]? axis=None, float correction=0.0) -> Tensor",
    deviation_kernel,
    fake=deviation_fake,
    grad={"x": "deviation(g, axis, correction)"},
    vmap=deviation_vmap,
)


def var_kernel(
    x: Array, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Average the squared distance from the mean, with `n - correction` for `n`."""
    dtype = wide(x.dtype)
    y = x if dtype is None else x.astype(dtype)
    y = y - mean_kernel(y, axis, True)
    total = sum_kernel((y * y.conj()).real if y.dtype.kind == "c" else y * y, axis, None, keepdims)
    n = count(x.shape, normal_axes("var", axis, x.ndim)) - correction
    found = total / n if n > 0 else total * np.nan
    return found.astype(x.dtype) if is_floating(x.dtype) else found


def std_kernel(
    x: Array, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Give the root of the variance."""
    return np.sqrt(var_kernel(x, axis, correction, keepdims))


def _spread_fake(name: str, kernel: Fn) -> Fn:
    dtype_of = dtype_rule(lambda x, *_: kernel(x, [0], 0.0, False))
    return reduction_fake(name, lambda dtype, _: dtype_of(dtype))


var = reduction(
    "var",
    var_kernel,
    "spread(g, x.shape, axis, keepdims) * deviation(x, axis, correction)",
    option="float correction=0.0",
    fake=_spread_fake("var", var_kernel),
)
std = reduction(
    "std",
    std_kernel,
    # Where all elements are equal, the gradient is zero, as PyTorch has it.
    "spread(g * (r != 0) * 0.5 / (r + (r == 0)), x.shape, axis, keepdims) "
    "* deviation(x, axis, correction)",
    option="float correction=0.0",
    fake=_spread_fake("std", std_kernel),
)


# -- softmax ------------------------------------------------------------------


_max_along: Fn = np.maximum.reduce


def _sum_along(x: Array, axis: int) -> Array:
    return np.add.reduce(x, axis, keepdims=True)


def _exponents(name: str, x: Array, axis: Any) -> tuple[Array, Array]:
    """Give `x` less its greatest element, which is finite, and that element."""
    if x.dtype.kind in "biu":
        x = x.astype(np.float64)
    try:
        top = _max_along(x, axis, None, None, True, -np.inf)
    except ValueError as error:
        refuse(name, x, axis, error)
    top = np.where(np.isfinite(top), top, x.dtype.type(0))
    return x - top, top


def logsumexp_kernel(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """Give the logarithm of the sum of exponentials, without overflow."""
    if names_no_axis("logsumexp", x, axis):
        axis = None
    where = None if axis is None else tuple(axis)
    y, top = _exponents("logsumexp", x, where)
    found = np.log(sum_kernel(np.exp(y), axis, None, True)) + top
    if keepdims:
        return found
    return found.squeeze(normal_axes("logsumexp", axis, x.ndim)).copy("K")


def softmax_kernel(x: Array, axis: int = -1) -> Array:
    """Give exponentials that sum to one."""
    y = np.exp(_exponents("softmax", x, axis)[0])
    return y / _sum_along(y, axis)


def log_softmax_kernel(x: Array, axis: int = -1) -> Array:
    """Give the logarithm of softmax, without underflow."""
    y = _exponents("log_softmax", x, axis)[0]
    return y - np.log(_sum_along(np.exp(y), axis))


def _softmax(name: str, kernel: Fn, grad: str) -> Fn:
    dtype_of = dtype_rule(lambda x, *_: kernel(x, 0))

    def fake(x: Meta, axis: int) -> Meta:
        normal_axes(name, [axis], x.ndim)
        return same_order(x, dtype_of(x.dtype))

    return define(
        f"{name}(Tensor x, int axis=-1) -> Tensor",
        kernel,
        fake=fake,
        grad={"x": grad},
        vmap=along_vmap(name),
    )


def _logsumexp_fake(x: Meta, axis: Axes, keepdims: bool) -> Meta:
    dtype = np.dtype(np.float64) if x.dtype.kind in "biu" else x.dtype
    return reduced("logsumexp", x, axis, keepdims, dtype)


logsumexp = reduction(
    "logsumexp",
    logsumexp_kernel,
    "spread(g, x.shape, axis, keepdims) * exp(x - spread(r, x.shape, axis, keepdims))",
    fake=_logsumexp_fake,
)
softmax = _softmax("softmax", softmax_kernel, "r * (g - sum(g * r, axis=[axis], keepdims=True))")
log_softmax = _softmax(
    "log_softmax", log_softmax_kernel, "g - exp(r) * sum(g, axis=[axis], keepdims=True)"
)


# -- running sums and products --------------------------------------------------


def running(name: str, ufunc: np.ufunc) -> Fn:
    """Give the kernel that folds from the left and keeps every step."""
    fold, first = ufunc.accumulate, ufunc.identity

    def kernel(
        x: Array,
        axis: int | None = None,
        dtype: DType | None = None,
        include_initial: bool = False,
    ) -> Array:
        at = _only_axis(name, x, axis)
        if not include_initial:
            return fold(x, at, dtype)
        dtype = fold(x[(slice(0),) * x.ndim], at, dtype).dtype
        shape = [n + (i == at) for i, n in enumerate(x.shape)]
        result = np.full(shape, first, dtype)
        fold(x, at, dtype, result[(slice(None),) * at + (slice(1, None),)])
        return result

    return kernel


def _only_axis(name: str, x: Any, axis: int | None) -> int:
    """Give the axis as a number from 0; only one-dimensional arrays need not name it."""
    if axis is None and x.ndim != 1:
        raise ArgumentError(
            f"core::{name} needs an axis",
            op=f"core::{name}",
            argument="axis",
            seen=f"None for {x.ndim} axes",
            fix="give axis=",
        )
    return real_axis(name, axis or 0, x.ndim)


def _running_fake(name: str, kernel: Fn) -> Fn:
    dtype_of = dtype_rule(lambda x, _, dtype, __: kernel(x, 0, dtype))

    def fake(
        x: Meta, axis: int | None, dtype: DType | None = None, include_initial: bool = False
    ) -> Meta:
        at = _only_axis(name, x, axis)
        found = dtype_of(x.dtype, dtype)
        if not include_initial:
            return same_order(x, found)
        shape = tuple([n + 1 if i == at else n for i, n in enumerate(x.shape)])
        return x.space.meta(shape, found, None, x.device)

    return fake


def _running(name: str, kernel: Fn, grad: str) -> Fn:
    return define(
        f"{name}(Tensor x, *, int? axis=None, ScalarType? dtype=None, "
        "bool include_initial=False) -> Tensor",
        kernel,
        fake=_running_fake(name, kernel),
        grad={"x": grad},
        vmap=along_vmap(name),
    )


cumulative_sum_kernel = running("cumulative_sum", np.add)
cumulative_prod_kernel = running("cumulative_prod", np.multiply)


def suffix_sum_kernel(
    x: Array, axis: int | None = None, dtype: DType | None = None, skip_first: bool = False
) -> Array:
    """Sum from each element to the end: the gradient of the running sum."""
    at = _only_axis("cumulative_sum", x, axis)
    sums = np.flip(np.add.accumulate(np.flip(x, at), at), at)
    if skip_first:
        sums = sums[(slice(None),) * at + (slice(1, None),)]
    if dtype is not None and sums.dtype.kind == "c" != dtype.kind:
        sums = sums.real
    return np.array(sums, dtype, order="C")


def suffix_sum_fake(x: Meta, axis: int | None, dtype: DType | None, skip_first: bool) -> Meta:
    """Describe the sums."""
    at = _only_axis("cumulative_sum", x, axis)
    shape = tuple([n - 1 if skip_first and i == at else n for i, n in enumerate(x.shape)])
    return x.space.meta(shape, x.dtype if dtype is None else dtype, None, x.device)


def running_prod_grad_kernel(
    given: Array, x: Array, axis: int | None = None, include_initial: bool = False
) -> Array:
    """Give the gradient of the running product, zeros included: one sum per element."""
    at = _only_axis("cumulative_prod", x, axis)
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
    vmap=along_vmap("suffix_sum"),
)
running_prod_grad = define(
    "running_prod_grad(Tensor given, Tensor x, int? axis=None, "
    "bool include_initial=False) -> Tensor",
    running_prod_grad_kernel,
    fake=running_prod_grad_fake,
)
cumulative_sum = _running(
    "cumulative_sum",
    cumulative_sum_kernel,
    "suffix_sum(g, axis=axis, dtype=x.dtype, skip_first=include_initial)",
)
cumulative_prod = _running(
    "cumulative_prod", cumulative_prod_kernel, "running_prod_grad(g, x, axis, include_initial)"
)
