"""Operators that choose, element by element, among given values."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.devices import as_dtype
from polyop.ops.pointwise import binary, pointwise

Array = np.ndarray[Any, Any]

#: Which part of `clip` an element falls into.
INSIDE, BELOW, ABOVE = 0, 1, 2


def where_numbers_kernel(condition: Array, a: Any, b: Any) -> Array:
    """Choose between two numbers, whose dtype is that of a new tensor of them."""
    dtype = as_dtype((a + b).__class__)
    return np.where(condition, np.array(a, dtype), np.array(b, dtype))


def masked_fill_kernel(x: Array, mask: Array, value: Any) -> Array:
    """Put a value, converted to the dtype of `x`, where the mask holds."""
    value = value.astype(x.dtype) if isinstance(value, np.ndarray) else x.dtype.type(value)
    return np.where(mask, value, x)


def clip_kernel(x: Array, min: Any, max: Any) -> Array:
    """Move elements into an interval; a side that is None is open."""
    if min is None:
        return x.copy("K") if max is None else np.minimum(x, max)
    low = np.maximum(x, min)
    return low if max is None else np.minimum(low, max)


def clip_part_kernel(x: Array, min: Any, max: Any, part: int) -> Array:
    """Tell which elements `clip` keeps, or moves up to `min`, or down to `max`."""
    if part == ABOVE:
        above = x > max
        return above if min is None else above | (min > max)
    if part == BELOW:
        below = x < min
        return below if max is None else below & (min < max)
    inside = np.ones(x.shape, np.bool_) if min is None else x >= min
    return inside if max is None else inside & (x <= max)


where = pointwise(
    "where(Tensor condition, Tensor a, Tensor b)",
    np.where,
    {"a": "where(condition, g, 0)", "b": "where(condition, 0, g)"},
)
pointwise(
    "where.ScalarA(Tensor condition, Scalar a, Tensor b)",
    np.where,
    {"b": "where(condition, 0, g)"},
)
pointwise(
    "where.ScalarB(Tensor condition, Tensor a, Scalar b)",
    np.where,
    {"a": "where(condition, g, 0)"},
)
pointwise("where.Scalars(Tensor condition, Scalar a, Scalar b)", where_numbers_kernel)

masked_fill = pointwise(
    "masked_fill(Tensor x, Tensor mask, Scalar value)",
    masked_fill_kernel,
    {"x": "where(mask, 0, g)"},
)
pointwise(
    "masked_fill.Tensor(Tensor x, Tensor mask, Tensor value)",
    masked_fill_kernel,
    {"x": "where(mask, 0, g)", "value": "where(mask, g, 0)"},
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
nextafter = binary("nextafter", np.nextafter, None)

clip = pointwise(
    "clip(Tensor x, Scalar? min=None, Scalar? max=None)",
    clip_kernel,
    {"x": f"where(clip_part(x, min, max, {INSIDE}), g, 0)"},
)
pointwise(
    "clip.Tensor(Tensor x, Tensor? min=None, Tensor? max=None)",
    clip_kernel,
    {
        "x": f"where(clip_part(x, min, max, {INSIDE}), g, 0)",
        "min": f"where(clip_part(x, min, max, {BELOW}), g, 0)",
        "max": f"where(clip_part(x, min, max, {ABOVE}), g, 0)",
    },
)
#: For the gradient of `clip`, whose sides may be None.
clip_part = pointwise(
    "clip_part(Tensor x, Scalar? min, Scalar? max, int part)", clip_part_kernel
)
pointwise(
    "clip_part.Tensor(Tensor x, Tensor? min, Tensor? max, int part)", clip_part_kernel
)
