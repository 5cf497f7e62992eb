"""Native kernels that compute each element by itself."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from polyop.ops.axes import SINGLE
from polyop.ops.complex_parts import part_of
from polyop.payloads.library import Array
from polyop.payloads.native import NATIVE, NUMBERS, Call, Unsupported, native
from polyop.tensor.tensor import is_floating

#: Named as in the standard; integers are converted where the result is of floats.
UNARY = (
    *("abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "conj", "cos", "cosh"),
    *("exp", "expm1", "floor", "log", "log1p", "log2", "log10", "negative"),
    *("sin", "sinh", "sqrt", "square", "tan", "tanh", "trunc", "bitwise_invert"),
)
#: With results that are truth values, of what the argument is.
TESTS = ("isfinite", "isinf", "isnan", "signbit")
#: Both arguments in the result's dtype.
ARITHMETIC = (
    *("add", "subtract", "multiply", "divide", "atan2", "copysign", "logaddexp", "nextafter"),
    *("maximum", "minimum", "hypot", "bitwise_and", "bitwise_or", "bitwise_xor"),
)
#: Both arguments in the dtype in which they meet.
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
LOGICAL = ("logical_and", "logical_or", "logical_xor")


def unary(name: str, call: Call, x: Array) -> Array:
    """Compute a function of one array."""
    if call.dtype.kind != "b" and call.dtype_of(x).kind in "biu":
        x = call.to(x, call.dtype)
    return getattr(call.xp, name)(x)


def arithmetic(name: str, call: Call, a: Any, b: Any) -> Array:
    """Compute in the result's dtype."""
    operation = call.library.own.get(name) or getattr(call.xp, name)
    return operation(call.to(a, call.dtype), call.to(b, call.dtype))


def comparison(name: str, call: Call, a: Any, b: Any) -> Array:
    """Compare in the dtype in which both meet."""
    dtype = call.common(a, b)
    if dtype.kind == "c" and "equal" != name != "not_equal":
        raise Unsupported
    return getattr(call.xp, name)(call.to(a, dtype), call.to(b, dtype))


def truth(call: Call, x: Any) -> Array:
    """Tell what is not zero."""
    if x.__class__ in NUMBERS:
        return call.number(bool(x), call.dtype)
    return x if call.dtype_of(x).kind == "b" else x != call.number(0, call.dtype_of(x))


def logical(name: str, call: Call, a: Any, b: Any) -> Array:
    """Combine truth values."""
    return getattr(call.xp, name)(truth(call, a), truth(call, b))


NATIVE.update({f"core::{n}": partial(unary, n) for n in (*UNARY, *TESTS)})
NATIVE.update({f"core::{n}": partial(arithmetic, n) for n in ARITHMETIC})
NATIVE.update({f"core::{n}": partial(comparison, n) for n in COMPARISONS})
NATIVE.update({f"core::{n}": partial(logical, n) for n in LOGICAL})


@native("logical_not")
def logical_not(call: Call, x: Array) -> Array:
    """Turn truth values."""
    return call.xp.logical_not(truth(call, x))


@native("positive", "clone")
def clone(call: Call, x: Array) -> Array:
    """Copy what could be written."""
    return call.library.copy(call.to(x, call.dtype))


@native("contiguous_copy")
def contiguous_copy(call: Call, x: Array) -> Array:
    """Put elements in order; those that are so already are copied where a tensor is made."""
    return call.library.laid_out(x, None)


@native("sign")
def sign(call: Call, x: Array) -> Array:
    """Take the sign; where one part alone is infinite, it is that part's.

    Libraries divide complex numbers by their size, which must be no infinity, and not too small.
    """
    if call.dtype.kind != "c":
        return unary("sign", call, x)
    xp, part_dtype = call.xp, part_of(call.dtype)
    parts = xp.real(x), xp.imag(x)
    least = call.number(float(np.finfo(part_dtype).smallest_normal), part_dtype)
    small = (xp.abs(parts[0]) < least) & (xp.abs(parts[1]) < least)
    of_numbers = call.library.own.get("complex_sign") or xp.sign
    found = of_numbers(xp.where(small, x * call.number(2.0**100, call.dtype), x))
    far = [xp.isinf(part) for part in parts]
    zero = call.number(0, part_dtype)
    for part, alone, unit in zip(parts, (far[0] & ~far[1], far[1] & ~far[0]), (1, 1j), strict=True):
        for there, value in ((part > zero, unit), (part < zero, 0 - unit)):
            found = xp.where(alone & there, call.number(value, call.dtype), found)
    return found


@native("real")
def real(call: Call, x: Array) -> Array:
    """Take the real part."""
    if call.dtype_of(x).kind != "c":
        return call.library.copy(x)
    return call.library.copy(call.xp.real(x))


@native("imag")
def imag(call: Call, x: Array) -> Array:
    """Take the imaginary part, which is zero for real numbers."""
    if call.dtype_of(x).kind != "c":
        return call.full(x.shape, 0)
    return call.library.copy(call.xp.imag(x))


@native("complex")
def complex_(call: Call, real: Array, imag: Array) -> Array:
    """Put two parts side by side; the standard has no function for it."""
    join = call.library.own.get("complex")
    if join is None:
        raise Unsupported
    part = part_of(call.dtype)
    return join(call.broadcast(call.to(real, part)), call.broadcast(call.to(imag, part)))


@native("angle")
def angle(call: Call, x: Array) -> Array:
    """Take the angle in the plane of complex numbers."""
    if call.dtype_of(x).kind == "c":
        return call.xp.atan2(call.xp.imag(x), call.xp.real(x))
    x = call.to(x, call.dtype)
    return call.xp.atan2(call.full(x.shape, 0), x)


@native("astype")
def astype(call: Call, x: Array, dtype: Any) -> Array:
    """Convert; NumPy says what becomes of floats that no integer holds."""
    return call.to(real_part(call, x), dtype)


def real_part(call: Call, x: Array) -> Array:
    """Give what there is of an array where results are no complex numbers."""
    complex_to_real = call.dtype_of(x).kind == "c" and call.dtype.kind not in "cb"
    return call.xp.real(x) if complex_to_real else x


@native("copy")
def copy(call: Call, x: Array, src: Array) -> Array:
    """Give values the shape and dtype of another array."""
    return call.library.copy(call.broadcast(call.to(real_part(call, src), call.dtype)))


@native("fill")
def fill(call: Call, x: Array, value: Any) -> Array:
    """Fill the shape of an array."""
    if call.dtype.kind in "iub" and value.__class__ is not int and value.__class__ is not bool:
        raise Unsupported
    return call.library.copy(call.broadcast(call.number(value, call.dtype)))


@native("zero_like")
def zero_like(call: Call, x: Array, *facts: Any) -> Array:
    """Make zeros of the shape of an array."""
    return call.full(call.shape, 0)


def here(call: Call, device: Any) -> None:
    """Refuse another device than that of the array; a library may know no other."""
    if device is not None and device is not call.library.device(call.like):
        raise Unsupported


@native("zeros_like", "empty_like")
def zeros_like(call: Call, x: Array, dtype: Any, device: Any) -> Array:
    """Make zeros of the shape of an array."""
    here(call, device)
    return call.full(call.shape, 0)


@native("ones_like")
def ones_like(call: Call, x: Array, dtype: Any, device: Any) -> Array:
    """Make ones of the shape of an array."""
    here(call, device)
    return call.full(call.shape, 1)


@native("full_like")
def full_like(call: Call, x: Array, value: Any, dtype: Any, device: Any) -> Array:
    """Fill the shape of an array."""
    here(call, device)
    return fill(call, x, value)


@native("zero_of")
def zero_of(call: Call, x: Array, shape: Any) -> Array:
    """Make zeros."""
    return call.full(call.shape, 0)


@native("where")
def where(call: Call, condition: Array, a: Any, b: Any) -> Array:
    """Choose between two arrays."""
    chosen = call.xp.where(
        truth_of(call, condition), call.to(a, call.dtype), call.to(b, call.dtype)
    )
    return chosen


@native("masked_fill")
def masked_fill(call: Call, x: Array, mask: Array, value: Any) -> Array:
    """Choose a value where a mask holds."""
    if value.__class__ in NUMBERS:
        value = fill(call, x, value)
    return call.xp.where(truth_of(call, mask), call.to(value, call.dtype), x)


def truth_of(call: Call, x: Array) -> Array:
    """Tell what is not zero, whatever the result is."""
    return x if call.dtype_of(x).kind == "b" else x != call.number(0, call.dtype_of(x))


@native("clip")
def clip(call: Call, x: Array, least: Any, most: Any) -> Array:
    """Keep between two bounds."""
    for bound in (least, most):
        if bound.__class__ is int:
            call.number(bound, call.dtype_of(x))  # which NumPy refuses where it does not fit
    x = call.to(x, call.dtype)
    if least is not None:
        x = _bounded(call, x, least, _below(call, least, most))
    if most is not None:
        return _bounded(call, x, most, operator.gt)
    return call.library.copy(x) if least is None else x


def _below(call: Call, least: Any, most: Any) -> Callable[[Array, Array], Array]:
    """Tell what is below a bound: where both are one, so is what is there, and moves with it."""
    numbers = least.__class__ in NUMBERS and most.__class__ in NUMBERS
    if most is None or (numbers and least != most):
        return operator.lt
    end = call.to(most, call.dtype)
    return lambda x, low: (x < low) | ((x == low) & (low == end))


def _bounded(call: Call, x: Array, bound: Any, beyond: Callable[[Array, Array], Array]) -> Array:
    """Put a bound in the place of what is beyond it, and NaN where the bound is.

    By `where`, for `maximum` and `minimum` share gradients at the bound itself.
    """
    bound = call.to(bound, call.dtype)
    return call.xp.where(beyond(x, bound) | (bound != bound), bound, x)  # noqa: PLR0124 - NaN


@native("reciprocal")
def reciprocal(call: Call, x: Array) -> Array:
    """Divide one; integers by zero are NumPy's affair."""
    if call.dtype.kind in "biu":
        raise Unsupported
    return call.xp.reciprocal(call.to(x, call.dtype))


@native("sigmoid")
def sigmoid(call: Call, x: Array) -> Array:
    """Compute `1 / (1 + exp(-x))` without overflow, smooth at zero."""
    x = call.to(x, call.dtype)
    one = call.number(1, call.dtype)
    if call.dtype.kind == "c":
        return one / (one + call.xp.exp(-x))
    above = x >= call.number(0, call.dtype)
    small = call.xp.exp(call.xp.where(above, -x, x))
    return call.xp.where(above, one, small) / (one + small)


@native("relu")
def relu(call: Call, x: Array) -> Array:
    """Put zero in the place of negative elements; the gradient at zero is zero."""
    x, zero = call.to(x, call.dtype), call.number(0, call.dtype)
    return call.xp.where(x <= zero, zero, x)


@native("round")
def round_(call: Call, x: Array, decimals: int) -> Array:
    """Round to the nearest even."""
    if decimals:
        raise Unsupported
    x, join = call.to(x, call.dtype), call.library.own.get("complex")
    if call.dtype.kind == "c" and join is not None:  # both parts by themselves, infinities too
        return join(call.xp.round(call.xp.real(x)), call.xp.round(call.xp.imag(x)))
    return call.xp.round(x)


@native("pow")
def power(call: Call, a: Any, b: Any) -> Array:
    """Raise to a power; integers to negative ones are NumPy's error."""
    if call.dtype.kind in "biu" and (b.__class__ is not int or b < 0):
        raise Unsupported
    return call.xp.pow(call.to(a, call.dtype), call.to(b, call.dtype))


@native("fmod")
def fmod(call: Call, a: Any, b: Any) -> Array:
    """Give what is left, of the sign of the dividend, where the namespace has it."""
    if call.dtype.kind != "f":
        raise Unsupported
    return call.xp.fmod(call.to(a, call.dtype), call.to(b, call.dtype))


def _nonzero(call: Call, b: Any) -> tuple[Array, Array]:
    b = call.to(b, call.dtype)
    zero = call.number(0, call.dtype)
    return b == zero, call.xp.where(b == zero, call.number(1, call.dtype), b)


def _as_numpy(call: Call, a: Any, b: Any) -> tuple[Array, Array]:
    """Give dividend and divisor as NumPy divides them: small floats of others in single."""
    dtype = call.dtype if call.dtype.kind == "f" else SINGLE
    return tuple([call.to(call.to(v, call.dtype), dtype) for v in (a, b)])


@native("floor_divide")
def floor_divide(call: Call, a: Any, b: Any) -> Array:
    """Divide and round down; integers by zero are zero."""
    if is_floating(call.dtype):
        return call.xp.floor_divide(*_as_numpy(call, a, b))
    if call.dtype.kind not in "iu":
        raise Unsupported
    bad, b = _nonzero(call, b)
    return call.xp.where(bad, call.number(0, call.dtype), call.to(a, call.dtype) // b)


@native("remainder")
def remainder(call: Call, a: Any, b: Any) -> Array:
    """Give what is left, of the sign of the divisor; integers by zero leave zero."""
    if is_floating(call.dtype):
        return call.xp.remainder(*_as_numpy(call, a, b))
    if call.dtype.kind not in "iu":
        raise Unsupported
    bad, b = _nonzero(call, b)
    return call.xp.where(bad, call.number(0, call.dtype), call.to(a, call.dtype) % b)


@native("nan_to_num")
def nan_to_num(call: Call, x: Array, nan: float, above: Any, below: Any) -> Array:
    """Put numbers in the place of what is none."""
    if call.dtype.kind != "f":
        raise Unsupported
    facts = call.xp.finfo(call.library.native(call.dtype))
    xp, inf = call.xp, call.number(float("inf"), call.dtype)
    top = call.number(float(facts.max) if above is None else above, call.dtype)
    low = call.number(float(facts.min) if below is None else below, call.dtype)
    x = xp.where(x == inf, top, xp.where(x == -inf, low, x))
    return xp.where(xp.isnan(x), call.number(nan, call.dtype), x)


@native("bitwise_left_shift", "bitwise_right_shift")
def shift(call: Call, a: Any, b: Any) -> Array:
    """Leave shifts, whose width libraries take differently, to the exchange."""
    raise Unsupported
