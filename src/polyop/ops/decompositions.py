"""What composite built-in operators are made of, for whoever has kernels for few (S199).

Each computes what its operator computes: values, dtypes, strides, and
gradients, those at kinks included, which is why some choose with `where` and
not `maximum`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

import polyop.ops.decomposed_shapes  # noqa: F401 - registers its own
from polyop.devices import DType
from polyop.dispatch.decompositions import REGISTRY, DecompTable
from polyop.ops.axes import kept_shape, normal_axes
from polyop.ops.comparison import equal, greater_equal, isinf, isnan, logical_not, not_equal
from polyop.ops.creation import full
from polyop.ops.decomposition_table import CORE, both, core
from polyop.ops.elementwise import (
    LN2,
    LN10,
    abs,
    add,
    conj,
    divide,
    exp,
    log,
    log1p,
    multiply,
    negative,
    pow,
    real,
    sqrt,
    subtract,
)
from polyop.ops.reductions import any, max, sum
from polyop.ops.rounding import astype
from polyop.ops.select import maximum, minimum, where
from polyop.ops.view_inverses import contiguous_copy
from polyop.ops.views import detach, reshape
from polyop.tensor.tensor import Tensor, is_floating

Fn = Callable[..., Any]
Axes = Sequence[int] | None
FLOAT32, FLOAT64, INT64 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)


def core_decompositions() -> DecompTable:
    """Give a new table with the decomposition of each composite built-in operator."""
    return CORE.copy()


def converted(ufunc: np.ufunc, *args: Any) -> list[Any]:
    """Convert tensors to the dtype that a ufunc gives of them; numbers stay."""
    empty = [np.empty(0, a.dtype) if isinstance(a, Tensor) else a for a in args]
    dtype = ufunc(*empty).dtype
    return [astype(a, dtype) if isinstance(a, Tensor) and a.dtype != dtype else a for a in args]


def counted(x: Tensor, axis: Axes) -> Any:
    """Count the elements that a reduction takes together."""
    return prod(x.shape[i] for i in normal_axes("sum", axis, x.ndim))


def widened(x: Tensor) -> Any:
    """Convert to the dtype in which sums are kept."""
    if x.dtype.kind in "biu":
        return astype(x, FLOAT64)
    return astype(x, FLOAT32) if x.dtype.itemsize <= 2 else x


def narrowed(found: Any, dtype: DType) -> Any:
    """Convert a statistic of floats back to their dtype."""
    return astype(found, dtype) if is_floating(dtype) and found.dtype != dtype else found


# -- arithmetic -----------------------------------------------------------------


@core("square")
def square_parts(x: Tensor) -> Any:
    """Multiply by itself."""
    (x,) = converted(np.square, x)
    return multiply(x, x)


@core("rsqrt")
def rsqrt_parts(x: Tensor) -> Any:
    """Divide one by the root."""
    return divide(1, sqrt(x))


@core(*both("hypot"))
def hypot_parts(a: Any, b: Any) -> Any:
    """Take the root of a sum of squares, scaled so that none overflows."""
    a, b = map(_magnitude, converted(np.hypot, a, b))
    large, small = maximum(a, b), minimum(a, b)
    plain = logical_not(equal(large, 0) | isinf(large))
    ratio = divide(where(plain, small, 0), where(plain, large, 1))
    # What is infinite stays so beside a NaN, which `maximum` prefers.
    infinite = _is_infinite(a, large.dtype) | _is_infinite(b, large.dtype)
    return where(infinite, np.inf, multiply(large, sqrt(add(multiply(ratio, ratio), 1))))


def _is_infinite(x: Any, dtype: DType) -> Any:
    """Tell where a magnitude is infinite; a number may be so in the dtype alone."""
    if isinstance(x, Tensor):
        return equal(x, np.inf)
    with np.errstate(over="ignore"):
        return bool(np.isinf(np.asarray(x).astype(dtype)))


def _magnitude(x: Any) -> Any:
    if isinstance(x, Tensor):
        return abs(x)
    return x if x >= 0 else -x


@core("lerp", "lerp.Scalar")
def lerp_parts(a: Tensor, b: Tensor, weight: Any) -> Any:
    """Go from `a` to `b` by `weight`."""
    return add(a, multiply(weight, subtract(b, a)))


@core("addcmul")
def addcmul_parts(x: Tensor, a: Tensor, b: Tensor, *, value: Any = 1) -> Any:
    """Add a scaled product."""
    return add(x, _scaled(multiply(a, b), value))


@core("addcdiv")
def addcdiv_parts(x: Tensor, a: Tensor, b: Tensor, *, value: Any = 1) -> Any:
    """Add a scaled quotient."""
    return add(x, _scaled(divide(a, b), value))


def _scaled(x: Tensor, value: Any) -> Any:
    # One leaves all numbers as they are, and makes integers of truth values.
    return x if value.__class__ is int and value == 1 and x.dtype.kind != "b" else value * x


# -- exponentials and logarithms ------------------------------------------------


@core("exp2")
def exp2_parts(x: Tensor) -> Any:
    """Raise two to the power of each element."""
    return pow(2.0, *converted(np.exp2, x))


@core("log2")
def log2_parts(x: Tensor) -> Any:
    """Divide the natural logarithm."""
    return divide(log(x), LN2)


@core("log10")
def log10_parts(x: Tensor) -> Any:
    """Divide the natural logarithm."""
    return divide(log(x), LN10)


@core("softplus")
def softplus_parts(x: Tensor) -> Any:
    """Compute `log(1 + exp(x))` without overflow, smooth at zero."""
    (x,) = converted(np.logaddexp, x, 0)[:1]
    above = greater_equal(x, 0)
    return add(where(above, x, 0), log1p(exp(where(above, negative(x), x))))


@core(*both("logaddexp"))
def logaddexp_parts(a: Any, b: Any) -> Any:
    """Add exponentials, less the greater one."""
    a, b = converted(np.logaddexp, a, b)
    top = _finite(maximum(a, b))
    return add(log(add(exp(subtract(a, top)), exp(subtract(b, top)))), top)


def _finite(top: Any) -> Any:
    """Give what is taken away from exponents, which has no say in gradients."""
    top = detach(top)
    return where(logical_not(isinf(top) | isnan(top)), top, 0)


# -- reductions -----------------------------------------------------------------


@core("mean")
def mean_parts(x: Tensor, *, axis: Axes = None, keepdims: bool = False) -> Any:
    """Divide the sum by the count."""
    total = sum(widened(x), axis=axis, keepdims=keepdims)
    return narrowed(divide(total, counted(x, axis)), x.dtype)


@core("var")
def var_parts(
    x: Tensor, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> Any:
    """Average the squared distance from the mean."""
    wide = widened(x)
    y = subtract(wide, divide(sum(wide, axis=axis, keepdims=True), counted(x, axis)))
    squares = real(multiply(y, conj(y))) if y.dtype.kind == "c" else multiply(y, y)
    n = counted(x, axis) - correction
    total = sum(squares, axis=axis, keepdims=keepdims)
    return narrowed(divide(total, n) if n > 0 else multiply(total, np.inf), x.dtype)


@core("std")
def std_parts(
    x: Tensor, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> Any:
    """Take the root of the variance."""
    found = var_parts(widened(x), axis=axis, correction=correction, keepdims=keepdims)
    return narrowed(_root(found), x.dtype)


@core("norm2")
def norm2_parts(x: Tensor, *, axis: Axes = None, keepdims: bool = False) -> Any:
    """Take the root of the sum of squares."""
    y = widened(x)
    squares = real(multiply(y, conj(y))) if y.dtype.kind == "c" else multiply(y, y)
    return narrowed(_root(sum(squares, axis=axis, keepdims=keepdims)), x.dtype)


def _root(x: Any) -> Any:
    """Take a root whose gradient at zero is zero."""
    return sqrt(where(equal(x, 0), 0, x))


@core("count_nonzero")
def count_nonzero_parts(x: Tensor, *, axis: Axes = None, keepdims: bool = False) -> Any:
    """Sum truth values."""
    return sum(not_equal(x, 0), axis=axis, dtype=INT64, keepdims=keepdims)


@core("all")
def all_parts(x: Tensor, *, axis: Axes = None, keepdims: bool = False) -> Any:
    """Look for an element that is not so."""
    return logical_not(any(logical_not(x), axis=axis, keepdims=keepdims))


@core("vecdot")
def vecdot_parts(a: Tensor, b: Tensor, *, axis: int = -1) -> Any:
    """Sum the products."""
    products = multiply(conj(a) if a.dtype.kind == "c" else a, b)
    return contiguous_copy(sum(products, axis=[axis], dtype=products.dtype))


# -- softmax --------------------------------------------------------------------


def _exponents(x: Tensor, axis: Axes) -> tuple[Any, Any]:
    """Give `x` in the dtype of sums, and its greatest element, which has no say in gradients."""
    x = widened(x)
    if counted(x, axis) == 0:
        return x, 0
    # Of complex numbers the real part alone: an angle must not be counted around twice.
    return x, detach(max(real(x) if x.dtype.kind == "c" else x, axis=axis, keepdims=True))


@core("softmax")
def softmax_parts(x: Tensor, axis: int = -1) -> Any:
    """Divide exponentials by their sum."""
    y = exp(subtract(*_exponents(x, [axis])))
    return narrowed(divide(y, sum(y, axis=[axis], keepdims=True)), x.dtype)


@core("log_softmax")
def log_softmax_parts(x: Tensor, axis: int = -1) -> Any:
    """Take the logarithm of the sum of exponentials away."""
    y = subtract(*_exponents(x, [axis]))
    found = subtract(y, log(sum(exp(y), axis=[axis], keepdims=True)))
    return narrowed(found, x.dtype)


@core("logsumexp")
def logsumexp_parts(x: Tensor, *, axis: Axes = None, keepdims: bool = False) -> Any:
    """Take the logarithm of the sum of exponentials."""
    y, top = _exponents(x, axis)
    top = _finite(top) if isinstance(top, Tensor) else top
    found = add(log(sum(exp(subtract(y, top)), axis=axis, keepdims=True)), top)
    found = narrowed(found, x.dtype)
    if keepdims:
        return found
    axes = normal_axes("logsumexp", axis, x.ndim)
    return reshape(found, [n for i, n in enumerate(found.shape) if i not in axes])


# -- what gradients are made of ---------------------------------------------------


@core("deviation")
def deviation_parts(x: Tensor, axis: Axes = None, correction: float = 0.0) -> Any:
    """Give `2 (x - mean) / (n - correction)`."""
    n = counted(x, axis) - correction
    y = widened(x)
    distance = subtract(y, mean_parts(y, axis=axis, keepdims=True))
    return narrowed(multiply(distance, 2 / n if n != 0 else np.inf), x.dtype)


@core("spread")
def spread_parts(
    x: Tensor,
    shape: Sequence[Any],
    axis: Axes = None,
    keepdims: bool = False,
    dtype: DType | None = None,
) -> Any:
    """Repeat each element along the axes that a reduction took away."""
    if dtype is not None and x.dtype != dtype:
        x = astype(x, dtype)
    if axis is not None and not keepdims and x.ndim:
        x = reshape(x, list(kept_shape(tuple(shape), normal_axes("spread", axis, len(shape)))))
    return add(full(shape, 0, dtype=x.dtype, device=x.device), x)


@core("mean_grad")
def mean_grad_parts(
    x: Tensor, shape: Sequence[Any], axis: Axes = None, keepdims: bool = False
) -> Any:
    """Share each gradient among the elements that were averaged."""
    axes = normal_axes("mean", axis, len(shape))
    n = prod(shape[i] for i in axes)
    return spread_parts(divide(x, n if n > 0 else 1), shape, axes, keepdims, x.dtype)


REGISTRY.update(CORE)
