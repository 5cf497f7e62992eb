"""Rounding, and conversion between dtypes.

Integers are whole already: they keep their dtype. Where a rounded value does
not change, its gradient is zero, as in PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.ops.define import define
from polyop.ops.pointwise import POINTWISE, pointwise, pointwise_meta, unary

Array = np.ndarray[Any, Any]


def copied(x: Array) -> Array:
    """Copy, and keep the order of the axes; one along which nothing moves has no say in it."""
    if x.base is None or 0 not in x.strides or not x.size:  # what owns its memory moves everywhere
        return x.copy("K")
    parts = np.nditer([x, None], [], [["readonly"], ["writeonly", "allocate"]])
    found: Array = parts.operands[1]
    np.copyto(found, x)
    return found


def round_kernel(x: Array, decimals: int) -> Array:
    """Round halves to the even neighbour."""
    kind = x.dtype.kind
    if kind in "iu" and decimals >= 0:
        return copied(x)
    if kind == "b" or decimals == 0:
        return np.rint(x)  # the method's dtype for bools depends on `decimals`
    result = copied(x)
    result[...] = x.round(decimals)  # the method does not keep the order of the axes
    return result


def astype_kernel(x: Array, dtype: DType) -> Array:
    """Convert elements; a complex number becomes its real part."""
    if x.dtype.kind == "c" and dtype.kind not in "cb":
        x = x.real
    return (copied(x) if 0 in x.strides else x).astype(dtype)


def nan_to_num_kernel(x: Array, nan: float, posinf: float | None, neginf: float | None) -> Array:
    """Put numbers in the place of NaN and the infinities."""
    result = copied(x)
    if x.dtype.kind == "c":
        parts = [result.real, result.imag]
    else:
        parts = [result] if x.dtype.kind in "fV" else []
    for part in parts:
        _replace(part, nan, posinf, neginf)
    return result


def _replace(part: Array, nan: float, posinf: float | None, neginf: float | None) -> None:
    infinite = np.isinf(part)
    largest = np.nextafter(part.dtype.type(np.inf), part.dtype.type(0))
    np.copyto(part, part.dtype.type(nan), where=np.isnan(part))
    above = largest if posinf is None else part.dtype.type(posinf)
    below = -largest if neginf is None else part.dtype.type(neginf)
    negative = np.signbit(part)
    np.copyto(part, above, where=infinite & ~negative)
    np.copyto(part, below, where=infinite & negative)


floor = unary("floor", np.floor, "zero_like(g)")
ceil = unary("ceil", np.ceil, "zero_like(g)")
trunc = unary("trunc", np.trunc, "zero_like(g)")
round = pointwise("round(Tensor x, int decimals=0)", round_kernel, {"x": "zero_like(g)"})
nan_to_num = pointwise(
    "nan_to_num(Tensor x, float nan=0.0, float? posinf=None, float? neginf=None)",
    nan_to_num_kernel,
    {"x": "where(isfinite(x), g, 0)"},
)
clone = unary("clone", copied, "g")  # the kernel itself: no frame around it
# The layer of gradients gives each gradient its argument's dtype, here as everywhere.
astype = define(
    "astype(Tensor x, ScalarType dtype) -> Tensor",
    astype_kernel,
    fake=pointwise_meta("astype", lambda _, dtype: dtype),
    grad={"x": "g"},
    tags=POINTWISE,
)
