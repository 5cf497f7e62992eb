"""Operators that choose, element by element, among given values."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from polyop.errors import ArgumentError
from polyop.ops.factories import dtype_of_number
from polyop.ops.pointwise import binary, pointwise
from polyop.ops.rounding import copied

Array = np.ndarray[Any, Any]


#: From so many elements on a choice that is guessed costs more than the calls around a product.
LARGE = 1 << 10
_WORDS = {size: np.dtype(f"i{size}") for size in (2, 4, 8)}
_BYTE, _ONE = np.dtype(np.int8), np.int8(1)


def kept(mask: Array, array: Array) -> Array:
    """Put zeros where a mask is false, as `where` does, which guesses what each element will be.

    A product of the bits does not: with a word of ones, or of zeros, made of the mask. Bools of
    other bytes than 0 and 1, as in files, are true as well.
    """
    if not _is_product(mask, array):
        return np.where(mask, array, 0)
    zeros = np.logical_not(mask).view(_BYTE)
    return _product(np.subtract(zeros, _ONE, zeros), array, None)


def cleared(mask: Array, array: Array, out: Array | None = None) -> Array:
    """Put zeros where a mask is true; see `kept`.

    Args:
        mask: bools.
        array: real numbers, of the mask's shape.
        out: where they may be put, an array like that one.
    """
    if not _is_product(mask, array):
        return np.where(mask, 0, array)
    ones = np.logical_not(mask).view(_BYTE)
    return _product(np.negative(ones, ones), array, out)


def _is_product(mask: Array, array: Array) -> bool:
    fits = array.dtype.kind == "f" and array.itemsize in _WORDS and array.dtype.isnative
    whole = (
        array.flags.forc and mask.flags.forc and mask.flags.c_contiguous == array.flags.c_contiguous
    )
    return (
        fits
        and whole
        and array.size >= LARGE
        and mask.shape == array.shape
        and mask.dtype.kind == "b"
    )


def _product(words: Array, array: Array, out: Array | None) -> Array:
    word = _WORDS[array.itemsize]
    target = None if out is None else out.view(word)
    return cast("Array", np.bitwise_and(array.view(word), words, target).view(array.dtype))


def where_numbers_kernel(condition: Array, a: Any, b: Any) -> Array:
    """Choose between two numbers, whose dtype is that of a new tensor of them."""
    dtype = dtype_of_number(a, b)
    return np.where(condition, np.array(a, dtype), np.array(b, dtype))


def _fitting(number: Any, array: Array) -> Any:
    """Give a number that the array's integers hold; NumPy's `where` would wrap it around."""
    whole = number.__class__ is int and array.dtype.kind in "iu"
    return array.dtype.type(number) if whole else number


def where_number_kernel(condition: Array, a: Any, b: Array) -> Array:
    """Choose between a number and elements."""
    if a.__class__ is int and not a:
        return cleared(condition, b)
    return np.where(condition, _fitting(a, b), b)


def where_or_number_kernel(condition: Array, a: Array, b: Any) -> Array:
    """Choose between elements and a number."""
    if b.__class__ is int and not b:
        return kept(condition, a)
    return np.where(condition, a, _fitting(b, a))


def masked_fill_kernel(x: Array, mask: Array, value: Any) -> Array:
    """Put a value, converted to the dtype of `x`, where the mask holds."""
    if not isinstance(value, np.ndarray):
        value = x.dtype.type(value)
    elif value.dtype.kind == "c" and x.dtype.kind != "c":
        raise ArgumentError(
            "a complex value does not fit into real numbers",
            op="core::masked_fill",
            argument="value",
            declared=x.dtype.name,
            seen=value.dtype.name,
            fix="give its real part",
        )
    return np.where(mask, value.astype(x.dtype), x)


def clip_kernel(x: Array, min: Any, max: Any) -> Array:
    """Move elements into an interval; a side that is None is open."""
    try:
        if min is None:
            return copied(x) if max is None else np.minimum(x, max)
        if isinstance(max, np.ndarray) and max.dtype is not x.dtype:
            # Two by two, numbers and dtypes would meet in other dtypes than all at once.
            x = x.astype(np.result_type(x.dtype, _like(min), max.dtype), copy=False)
        raised: Array = np.maximum(x, min)
        return raised if max is None else np.minimum(raised, max)
    except OverflowError:
        if x.dtype.kind == "b":
            raise
        dtype = np.result_type(x.dtype, _like(min), _like(max))
        low, high = _reached(dtype, min, max)
        if low is min and high is max and dtype == x.dtype:
            raise
        return clip_kernel(x.astype(dtype, copy=False), low, high)


def _like(side: Any) -> Any:
    """Give what a side says of the result's dtype; of a number that is its type alone."""
    return np.False_ if side is None else getattr(side, "dtype", None) or side.__class__()


def _reached(dtype: Any, min: Any, max: Any) -> tuple[Any, Any]:
    """Leave out the limits that no integer of a dtype can be beyond."""
    if dtype.kind not in "iu":
        return min, max
    limits = np.iinfo(dtype)
    below = type(min) is int and min < limits.min
    above = type(max) is int and max > limits.max
    return None if below else min, None if above else max


_NUMBER = (int, float)


def clip_part_kernel(x: Array, min: Any, max: Any, part: str) -> Array:
    """Tell which elements `clip` keeps, or moves up to `min`, or down to `max`.

    Where both sides are one nothing is kept: what is not above is moved up.
    """
    both = min is not None and max is not None
    # Of two numbers, as most sides are, one look tells what holds for all elements.
    apart = not both or (isinstance(min, _NUMBER) and isinstance(max, _NUMBER) and min < max)
    if part == "above":
        above: Array = x > max
        return above if apart else above | (min > max)
    if part == "below":
        below: Array = x < min
        return below if apart else below & (min <= max) | (x == min) & (min == max)
    inside: Array = np.ones(x.shape, np.bool_) if min is None else x >= min
    if max is not None:
        inside = inside & (x <= max)
    return inside if apart else inside & (min != max)


where = pointwise(
    "where(Tensor condition, Tensor a, Tensor b)",
    np.where,
    {"a": "where(condition, g, 0)", "b": "where(condition, 0, g)"},
)
pointwise(
    "where.ScalarA(Tensor condition, Scalar a, Tensor b)",
    where_number_kernel,
    {"b": "where(condition, 0, g)"},
)
pointwise(
    "where.ScalarB(Tensor condition, Tensor a, Scalar b)",
    where_or_number_kernel,
    {"a": "where(condition, g, 0)"},
)
pointwise("where.Scalars(Tensor condition, Scalar a, Scalar b)", where_numbers_kernel)

# The overload on tensors comes first: an entry that meets a number goes on to the others.
masked_fill = pointwise(
    "masked_fill(Tensor x, Tensor mask, Tensor value)",
    masked_fill_kernel,
    {"x": "where(mask, 0, g)", "value": "where(mask, g, 0)"},
)
pointwise(
    "masked_fill.Scalar(Tensor x, Tensor mask, Scalar value)",
    masked_fill_kernel,
    {"x": "where(mask, 0, g)"},
)

maximum = binary(
    "maximum",
    np.maximum,
    ("where(a == b, g / 2, where(a < b, 0, g))", "where(a == b, g / 2, where(b < a, 0, g))"),
)
minimum = binary(
    "minimum",
    np.minimum,
    ("where(a == b, g / 2, where(a > b, 0, g))", "where(a == b, g / 2, where(b > a, 0, g))"),
)
nextafter = binary("nextafter", np.nextafter, ("where(a == b, 0, g)", "zero_like(g)"))

clip = pointwise(
    "clip(Tensor x, Tensor? min=None, Tensor? max=None)",
    clip_kernel,
    {
        "x": "where(clip_part(x, min, max, 'inside'), g, 0)",
        "min": "where(clip_part(x, min, max, 'below'), g, 0)",
        "max": "where(clip_part(x, min, max, 'above'), g, 0)",
    },
    steps=(0, 1, 2),
)
pointwise(
    "clip.Scalar(Tensor x, Scalar? min=None, Scalar? max=None)",
    clip_kernel,
    {"x": "where(clip_part(x, min, max, 'inside'), g, 0)"},
)
pointwise(
    "clip.ScalarMin(Tensor x, Scalar min, Tensor max)",
    clip_kernel,
    {
        "x": "where(clip_part(x, min, max, 'inside'), g, 0)",
        "max": "where(clip_part(x, min, max, 'above'), g, 0)",
    },
    steps=(0, 2),
)
pointwise(
    "clip.ScalarMax(Tensor x, Tensor min, Scalar max)",
    clip_kernel,
    {
        "x": "where(clip_part(x, min, max, 'inside'), g, 0)",
        "min": "where(clip_part(x, min, max, 'below'), g, 0)",
    },
    steps=(0, 1),
)
#: For the gradient of `clip`, whose sides may be None.
clip_part = pointwise("clip_part(Tensor x, Tensor? min, Tensor? max, str part)", clip_part_kernel)
pointwise("clip_part.Scalar(Tensor x, Scalar? min, Scalar? max, str part)", clip_part_kernel)
pointwise("clip_part.ScalarMin(Tensor x, Scalar min, Tensor max, str part)", clip_part_kernel)
pointwise("clip_part.ScalarMax(Tensor x, Tensor min, Scalar max, str part)", clip_part_kernel)
