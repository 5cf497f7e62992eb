"""Arithmetic, exponentials, trigonometry: operators that compute each element by itself.

NumPy's floating-point warnings (a logarithm of zero, an overflow) stay as
NumPy gives them: a guard around each kernel would cost three times the kernel
on small arrays, and `numpy.errstate` is at hand for who wants silence.

At points where a function has no derivative the gradients are PyTorch's: zero
for `abs` and `relu` at zero, halves for `maximum` and `minimum` at ties, and
zeros everywhere for functions that are constant in pieces.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import numpy as np

# Formulas here name the operators of these files.
import polyop.ops.broadcasting
import polyop.ops.comparison
import polyop.ops.rounding
import polyop.ops.select  # noqa: F401
from polyop.dispatch.bits import NUMPY
from polyop.dispatch.context import word
from polyop.lazy import load
from polyop.ops.define import ON_ARRAYS, ON_TENSORS
from polyop.ops.pointwise import Fn, binary, pointwise, unary
from polyop.ops.rounding import copied

Array = np.ndarray[Any, Any]

LN2 = 0.6931471805599453
LN10 = 2.302585092994046


# -- what formulas mean by some names ---------------------------------------------


def conj_in_formulas(x: Any, conjugate: Fn) -> Any:
    """Conjugate what is complex; give back anything else as it is, numbers too."""
    try:
        kind = x.dtype.kind
    except AttributeError:
        return x.conjugate() if x.__class__ is complex else x
    return conjugate(x) if kind == "c" else x


def real_in_formulas(x: Any, real: Fn) -> Any:
    """Take the real part of what is complex; give back anything else as it is."""
    try:
        kind = x.dtype.kind
    except AttributeError:
        return x.real if x.__class__ is complex else x
    return real(x) if kind == "c" else x


def number_log(x: Any, power: Any) -> Any:
    """Take the logarithm of a Python number, which stays one: an array's would have a dtype.

    Where powers of it are complex numbers, so is that of a negative number.
    """
    if x == 0:
        return -math.inf
    if x.__class__ is complex or (x < 0 and power.dtype.kind == "c"):
        return load("cmath:log")(x)
    return math.log(x) if x > 0 else math.nan


def kind_of(x: Any, dtype: Any, *, real: Any) -> Any:
    """Leave imaginary parts out where a dtype that was asked for has none."""
    return real(x) if x.dtype.kind == "c" and dtype.kind != "c" else x


def beside(x: Any, power: Any) -> Any:
    """Make numbers complex where powers of them are."""
    dtype = power.dtype
    return x.astype(dtype) if dtype.kind == "c" and x.dtype.kind != "c" else x


def lasting(exponent: Any, *, real: Any) -> Any:
    """Tell for which exponents powers of zero stay what they are, a little beside them too.

    An imaginary exponent has none: zero turns around without end.
    """
    if exponent.dtype.kind != "c":
        return exponent >= 0
    return (real(exponent) > 0) | (exponent == 0)


def power_slope(x: Any, exponent: Any) -> Any:
    """Differentiate a power whose exponent is a number."""
    return x * 2 if exponent == 2 else exponent * x ** (exponent - 1)


def over_base(x: Any, base: Any, exponent: Any) -> Any:
    """Divide by the base where the exponent is zero: `x` is zero there, but its slope is not.

    Of a base that is zero it rises without bound there, and falls so where the exponent is one.
    """
    where, size = ON_TENSORS["where"], ON_TENSORS["abs"](base)
    rise = cliff(1, exponent, (base == 0) & (exponent == 0))
    fall = cliff(1, exponent - 1, (base == 0) & (exponent == 1))
    return x / where(exponent == 0, where(size > 0, base, math.inf), 1) + rise - fall


def from_zero(g: Any, base: Any, exponent: Any) -> Any:
    """Give the slope by the exponent where a base is zero: zeros, some of which have no slope."""
    if exponent.dtype.kind == "c":
        return cliff(g, base, base == 0)
    rise, fall = exponent == 0, (exponent > 0) & (exponent <= 1)
    return cliff(g, base, (base == 0) & rise) - cliff(g, base, (base == 0) & fall)


def cliff(g: Any, x: Any, there: Any) -> Any:
    """Give zeros; in some places, where `x` is zero, their slope has no bound, times `g`."""
    where = ON_TENSORS["where"]
    return where(there, g * ON_TENSORS["sqrt"](where(there, x, 1)), 0)


def steep(x: Any, other: Any) -> Any:
    """Give `x`; where both are zero it has no slope: that comes out NaN."""
    there = (x == 0) & (other == 0)
    return x * ON_TENSORS["sqrt"](ON_TENSORS["where"](there, x, 1))


def above(r: Any) -> Any:
    """Give one for each length, and zero for those of zero, which have no slope."""
    if r.keys == NUMPY and not word():  # nobody differentiates it
        return r != 0
    return ON_TENSORS["sqrt"](ON_TENSORS["where"](r == 0, r, 1))


# -- kernels that are no ufunc --------------------------------------------------


def real_kernel(x: Array) -> Array:
    """Copy the real parts."""
    return copied(x.real)


def imag_kernel(x: Array) -> Array:
    """Copy the imaginary parts, which are zeros for real numbers."""
    return copied(x.imag) if x.dtype.kind == "c" else np.zeros_like(copied(x))


def reciprocal_kernel(x: Array) -> Array:
    """Divide one; NumPy's keeps whole numbers whole, which makes zeros of nearly all."""
    if x.dtype.kind in "biu":
        return cast("Array", np.true_divide(1, x))
    return cast("Array", np.reciprocal(x))


def rsqrt_kernel(x: Array) -> Array:
    """Compute one over the square root."""
    return cast("Array", np.reciprocal(np.sqrt(x)))


def sigmoid_kernel(x: Array) -> Array:
    """Compute `1 / (1 + exp(-x))` without overflow."""
    if x.dtype.kind == "c":
        return cast("Array", np.reciprocal(1 + np.exp(-x)))
    # A float beside integers makes floats, before the sign of an unsigned one is turned.
    small: Array = np.exp(np.negative(np.abs(x if x.dtype.kind in "fV" else x * 1.0)))
    large: Array = np.where(x >= 0, 1, small)
    return cast("Array", large / (1 + small))


def relu_kernel(x: Array) -> Array:
    """Put zero in the place of negative elements."""
    return np.maximum(x, 0)


def softplus_kernel(x: Array) -> Array:
    """Compute `log(1 + exp(x))` without overflow."""
    return np.logaddexp(x, 0)


def logaddexp_kernel(a: Any, b: Any) -> Array:
    """Compute `log(exp(a) + exp(b))` without overflow; NumPy's takes no complex numbers."""
    if not (np.iscomplexobj(a) or np.iscomplexobj(b)):
        return cast("Array", np.logaddexp(a, b))
    swap = np.real(a) < np.real(b)
    top, low = np.where(swap, b, a), np.where(swap, a, b)
    equal = np.isinf(top) & (top == low)
    return cast("Array", np.where(equal, top, top + np.log1p(np.exp(low - top))))


def lerp_kernel(a: Array, b: Array, weight: Any) -> Array:
    """Go from `a` to `b` by `weight`."""
    return cast("Array", np.add(a, weight * (b - a)))


def addcmul_kernel(x: Array, a: Array, b: Array, value: Any) -> Array:
    """Add a scaled product."""
    return cast("Array", np.add(x, value * (a * b)))


def addcdiv_kernel(x: Array, a: Array, b: Array, value: Any) -> Array:
    """Add a scaled quotient."""
    return cast("Array", np.add(x, value * (a / b)))


# -- arithmetic -----------------------------------------------------------------

add = binary("add", np.add, ("g", "g"))
subtract = binary("subtract", np.subtract, ("g", "-g"))
multiply = binary("multiply", np.multiply, ("g * conj(b)", "g * conj(a)"))
divide = binary("divide", np.divide, ("g / conj(b)", "-g * conj(a / b / b)"))
floor_divide = binary("floor_divide", np.floor_divide, ("zero_like(g)", "zero_like(g)"))
remainder = binary("remainder", np.remainder, ("g", "-g * floor_divide(a, b)"))
fmod = binary("fmod", np.fmod, ("g", "-g * trunc(detach(a / b))"))
# Zero stays zero when its exponent changes, unless that is negative.
_FLAT = "(a == 0) & lasting(b)"
pow = binary(
    "pow",
    np.power,
    (
        "g * conj(over_base(b * a ** where(b == 0, b, b - 1), a, b))",
        f"where({_FLAT}, from_zero(g, a, b), g * conj(r * log(beside(where({_FLAT}, 1, a), r))))",
    ),
    (
        "g * conj(power_slope(a, b)) if b != 0 else where(zero_like(a) != 0, g, 0)",
        "g * conj(r * number_log(a, r)) if a != 0 "
        "else g * where(lasting(b), 0, r * number_log(a, r))",
    ),
)
negative = unary("negative", np.negative, "-g")
positive = unary("positive", np.positive, "g")
reciprocal = unary("reciprocal", reciprocal_kernel, "-g * conj(r * r)")
square = unary("square", np.square, "g * (2 * conj(x))")
sqrt = unary("sqrt", np.sqrt, "g / (2 * conj(r))")
rsqrt = unary("rsqrt", rsqrt_kernel, "g * (-0.5 * conj(r * r * r))")
hypot = binary("hypot", np.hypot, ("g * (a / r)", "g * (b / r)"))
lerp = pointwise(
    "lerp(Tensor a, Tensor b, Tensor weight)",
    lerp_kernel,
    {"a": "g * conj(1 - weight)", "b": "g * conj(weight)", "weight": "g * conj(b - a)"},
    steps=(0, 1, 2, 0),
)
pointwise(
    "lerp.Scalar(Tensor a, Tensor b, Scalar weight)",
    lerp_kernel,
    {"a": "g * conj(1 - weight)", "b": "g * conj(weight)"},
    steps=(0, 1, 0),
)
addcmul = pointwise(
    "addcmul(Tensor x, Tensor a, Tensor b, *, Scalar value=1)",
    addcmul_kernel,
    {"x": "g", "a": "g * conj(b * value)", "b": "g * conj(a * value)"},
    steps=(1, 2, 0),
)
addcdiv = pointwise(
    "addcdiv(Tensor x, Tensor a, Tensor b, *, Scalar value=1)",
    addcdiv_kernel,
    {"x": "g", "a": "g * conj(value / b)", "b": "-g * conj(value * a / (b * b))"},
    steps=(1, 2, 0),
)

# -- magnitude and complex numbers ------------------------------------------------

abs = unary("abs", np.absolute, "g * sign(x)")
# For complex numbers the direction, whose derivative is along the circle.
sign = unary(
    "sign",
    np.sign,
    "zero_like(g) if x.dtype.kind != 'c' "
    "else where(x == 0, 0, (g - sign(x) * real(conj(sign(x)) * g)) / where(x == 0, 1, abs(x)))",
)
copysign = binary("copysign", np.copysign, ("g * (sign(a) * sign(r))", "zero_like(g)"))
conj = unary("conj", np.conjugate, "conj(g)")
real = unary("real", real_kernel, "g")
imag = unary("imag", imag_kernel, "g * 1j")
angle = unary(
    "angle",
    np.angle,
    "zero_like(g) if x.dtype.kind != 'c' "
    "else where(x == 0, cliff(g, x, x == 0), g * 1j * (sign(x) / where(x == 0, 1, abs(x))))",
)

# -- exponentials and logarithms ------------------------------------------------

exp = unary("exp", np.exp, "g * conj(r)")
exp2 = unary("exp2", np.exp2, f"g * conj(r * {LN2})")
expm1 = unary("expm1", np.expm1, "g * conj(r + 1)")
log = unary("log", np.log, "g / conj(x)")
log1p = unary("log1p", np.log1p, "g / conj(x + 1)")
log2 = unary("log2", np.log2, f"g / conj(x * {LN2})")
log10 = unary("log10", np.log10, f"g / conj(x * {LN10})")
logaddexp = binary(
    "logaddexp", logaddexp_kernel, ("g * conj(sigmoid(a - b))", "g * conj(sigmoid(b - a))")
)
sigmoid = unary("sigmoid", sigmoid_kernel, "g * conj((1 - r) * r)")
softplus = unary("softplus", softplus_kernel, "g * sigmoid(x)")
relu = unary("relu", relu_kernel, "where(r <= 0, 0, g)")

# -- trigonometry -----------------------------------------------------------------

sin = unary("sin", np.sin, "g * conj(cos(x))")
cos = unary("cos", np.cos, "-g * conj(sin(x))")
tan = unary("tan", np.tan, "g * conj(1 + r * r)")
asin = unary("asin", np.arcsin, "g / conj(sqrt(1 - x * x))")
acos = unary("acos", np.arccos, "-g / conj(sqrt(1 - x * x))")
atan = unary("atan", np.arctan, "g / conj(1 + x * x)")
# At the origin, where there is no angle, both gradients are zero.
_SQUARES = "where((a == 0) & (b == 0), 1, a * a + b * b)"
atan2 = binary(
    "atan2", np.arctan2, (f"g * (steep(b, a) / {_SQUARES})", f"-g * (steep(a, b) / {_SQUARES})")
)
sinh = unary("sinh", np.sinh, "g * conj(cosh(x))")
cosh = unary("cosh", np.cosh, "g * conj(sinh(x))")
tanh = unary("tanh", np.tanh, "g * conj(1 - r * r)")
asinh = unary("asinh", np.arcsinh, "g / conj(sqrt(1 + x * x))")
# Two roots: the root of the product has the wrong sign for half of the complex plane.
acosh = unary("acosh", np.arccosh, "g / conj(sqrt(x - 1)) / conj(sqrt(x + 1))")
atanh = unary("atanh", np.arctanh, "g / conj(1 - x * x)")

ON_ARRAYS["conj"] = partial(conj_in_formulas, conjugate=np.conjugate)
ON_TENSORS["conj"] = partial(conj_in_formulas, conjugate=conj)
ON_ARRAYS["real"] = partial(real_in_formulas, real=np.real)
ON_TENSORS["real"] = partial(real_in_formulas, real=real)
ON_ARRAYS["kind_of"] = partial(kind_of, real=np.real)
ON_TENSORS["kind_of"] = partial(kind_of, real=real)
ON_ARRAYS["number_log"] = ON_TENSORS["number_log"] = number_log
ON_ARRAYS["beside"] = ON_TENSORS["beside"] = beside
ON_ARRAYS["lasting"] = partial(lasting, real=np.real)
ON_TENSORS["lasting"] = partial(lasting, real=real)
ON_ARRAYS["over_base"] = lambda x, _base, _exponent: x  # nobody differentiates it
ON_TENSORS["over_base"] = over_base
ON_ARRAYS["from_zero"] = lambda _g, _base, _exponent: 0
ON_TENSORS["from_zero"] = from_zero
ON_ARRAYS["cliff"] = lambda _g, _x, _there: 0
ON_TENSORS["cliff"] = cliff
ON_ARRAYS["steep"] = lambda x, _other: x
ON_TENSORS["steep"] = steep
ON_ARRAYS["above"] = lambda r: r != 0
ON_TENSORS["above"] = above
ON_ARRAYS["power_slope"] = ON_TENSORS["power_slope"] = power_slope
