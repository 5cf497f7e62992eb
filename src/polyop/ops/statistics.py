"""Statistics, and what normalises along an axis: mean, variance, softmax, running sums.

A deviation from the mean is linear and its own adjoint, so `deviation` serves
the gradient of the variance, and the gradient of that one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import DType
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
    reduced,
    refuse,
    rounded,
    same_order,
)
from polyop.ops.define import define
from polyop.ops.formulas import Built, formula
from polyop.ops.reductions import reduction, reduction_fake, sum_kernel
from polyop.ops.running import (  # noqa: F401 - they are of this family
    cumulative_prod,
    cumulative_sum,
)
from polyop.ops.signatures import announce
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
    grad={"x": "mean_or_zero(g, axis=axis, keepdims=keepdims)"},
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
    dtype = wide(x.dtype)
    y = x if dtype is None else x.astype(dtype)
    away = y - mean_kernel(y, axis, True)
    return rounded(away * (2 / n) if n != 0 else endless(away), x.dtype)


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


def endless(x: Array) -> Array:
    """Divide by no degrees of freedom: zeros become no number, others infinite."""
    with np.errstate(invalid="ignore"):
        return x * np.inf


def var_kernel(
    x: Array, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Average the squared distance from the mean, with `n - correction` for `n`."""
    return rounded(_variance(x, axis, correction, keepdims), x.dtype)


def _variance(x: Array, axis: Axes, correction: float, keepdims: bool) -> Array:
    """Give the variance in the dtype of sums."""
    dtype = wide(x.dtype)
    y = x if dtype is None else x.astype(dtype)
    y = y - mean_kernel(y, axis, True)
    total = sum_kernel((y * y.conj()).real if y.dtype.kind == "c" else y * y, axis, None, keepdims)
    n = count(x.shape, normal_axes("var", axis, x.ndim)) - correction
    return total / n if n > 0 else endless(total)


def std_kernel(
    x: Array, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Give the root of the variance."""
    return rounded(np.sqrt(_variance(x, axis, correction, keepdims)), x.dtype)


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


@formula
def varying(of: Built, r: Any, x: Any, axis: Axes) -> Any:
    """Give `above(r)`; but one element alone deviates from itself nowhere: plain zeros."""
    n = count(x.shape, normal_axes("std", axis, len(x.shape)))
    return r != 0 if n.__class__ is int and n == 1 else of.above(r)


std = reduction(
    "std",
    std_kernel,
    # Where all elements are equal, the gradient is zero, as PyTorch has it.
    "spread(g * varying(r, x, axis) * 0.5 / (r + (r == 0)), x.shape, axis, keepdims) "
    "* deviation(x, axis, correction)",
    option="float correction=0.0",
    fake=_spread_fake("std", std_kernel),
)


# -- softmax ------------------------------------------------------------------


_max_along: Fn = np.maximum.reduce


def _sum_along(x: Array, axis: int) -> Array:
    return np.add.reduce(x, axis, keepdims=True)


def _exponents(name: str, x: Array, axis: Any) -> tuple[Array, Array]:
    """Give `x` in the dtype of sums, and its greatest element."""
    dtype = wide(x.dtype)
    if dtype is not None:
        x = x.astype(dtype)
    try:
        top = _max_along(x, axis, None, None, True, -np.inf)
    except ValueError as error:
        refuse(name, x, axis, error)
    if x.dtype.kind == "c":
        # Of complex numbers the real part alone: an angle must not be counted around twice.
        top = _max_along(x.real, axis, None, None, True, -np.inf)
    return x, top


def logsumexp_kernel(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """Give the logarithm of the sum of exponentials, without overflow."""
    if names_no_axis("logsumexp", x, axis):
        axis = None
    where = None if axis is None else tuple(axis)
    y, top = _exponents("logsumexp", x, where)
    top = np.where(np.isfinite(top), top, top.dtype.type(0))
    found = rounded(np.log(sum_kernel(np.exp(y - top), axis, None, True)) + top, x.dtype)
    if keepdims:
        return found
    return found.squeeze(normal_axes("logsumexp", axis, x.ndim)).copy("K")


def softmax_kernel(x: Array, axis: int = -1) -> Array:
    """Give exponentials that sum to one."""
    y = np.exp(np.subtract(*_exponents("softmax", x, axis)))
    return rounded(y / _sum_along(y, axis), x.dtype)


def log_softmax_kernel(x: Array, axis: int = -1) -> Array:
    """Give the logarithm of softmax, without underflow."""
    y = np.subtract(*_exponents("log_softmax", x, axis))
    return rounded(y - np.log(_sum_along(np.exp(y), axis)), x.dtype)


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


@formula
def shares(of: Built, x: Any, r: Any, axis: Axes, keepdims: bool) -> Any:
    """Give the softmax of `x`, whose `logsumexp` is `r`.

    Exponentials are summed anew: a large `r` has no digit left for the logarithm of their sum.
    """
    level = of.detach(of.where(of.isfinite(r), r, 0))
    y = of.exp(x - of.spread(level, x.shape, axis, keepdims))
    return y / of.sum(y, axis=axis, keepdims=True)


logsumexp = reduction(
    "logsumexp",
    logsumexp_kernel,
    "spread(g, x.shape, axis, keepdims) * conj(shares(x, r, axis, keepdims))",
    fake=_logsumexp_fake,
)
softmax = _softmax(
    "softmax",
    softmax_kernel,
    "conj(r) * (g - sum(g * conj(r), axis=[axis], keepdims=True))",
)
log_softmax = _softmax(
    "log_softmax", log_softmax_kernel, "g - conj(exp(r)) * sum(g, axis=[axis], keepdims=True)"
)

announce(globals())
