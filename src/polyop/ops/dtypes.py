"""What can be said of dtypes and shapes alone: the Array API's questions about them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from polyop.devices import DType, as_dtype
from polyop.errors import UsageError, UsageTypeError
from polyop.lazy import load
from polyop.ops.shapes import broadcast
from polyop.tensor.meta import Shape
from polyop.tensor.tensor import is_floating

#: By the standard's word for a kind of numbers, NumPy's letters.
KINDS = {
    "bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "iu",
    "complex floating": "c",
}  # fmt: skip


class FInfo(NamedTuple):
    """The limits of floating-point numbers, as Python numbers."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


class IInfo(NamedTuple):
    """The limits of integers, as Python numbers."""

    bits: int
    max: int
    min: int
    dtype: DType


def dtype_of(value: Any) -> DType:
    """Give the dtype of a tensor, or the one that is named."""
    return value.dtype if hasattr(value, "dtype") else as_dtype(value)


def finfo(type: Any, /) -> FInfo:
    """Give the limits of a floating-point dtype, of a complex one's parts, or of a tensor's.

    Raises:
        UsageTypeError: it is no such dtype.
    """
    dtype = dtype_of(type)
    if not is_floating(dtype) and dtype.kind != "c":
        raise UsageTypeError("finfo tells of floating-point numbers", seen=dtype, fix="call iinfo")
    # The small floats' own limits are read when they are first asked for.
    found = np.finfo(dtype) if dtype.isbuiltin == 1 else load("ml_dtypes:finfo")(dtype)
    numbers = (found.eps, found.max, found.min, found.smallest_normal)
    eps, greatest, least, normal = map(float, numbers)
    return FInfo(found.bits, eps, greatest, least, normal, np.dtype(found.dtype))


def iinfo(type: Any, /) -> IInfo:
    """Give the limits of an integer dtype, or of a tensor's.

    Raises:
        UsageTypeError: it is no integer dtype.
    """
    dtype = dtype_of(type)
    if dtype.kind not in "iu":
        raise UsageTypeError("iinfo tells of integers", seen=dtype, fix="call finfo")
    found = np.iinfo(dtype)
    return IInfo(found.bits, found.max, found.min, dtype)


def isdtype(dtype: Any, kind: Any) -> bool:
    """Tell whether a dtype is one of a kind.

    Args:
        dtype: a dtype.
        kind: a dtype; one of "bool", "signed integer", "unsigned integer",
            "integral", "real floating", "complex floating", "numeric"; or a
            tuple of such, any of which will do.

    Raises:
        UsageError: there is no such kind.
    """
    dtype = as_dtype(dtype)
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if not isinstance(kind, str):
        return bool(dtype == as_dtype(kind))
    if kind in {"real floating", "numeric"} and is_floating(dtype):
        return True
    if kind in {"real floating", "numeric"}:
        return kind == "numeric" and str(dtype.kind) in "iuc"
    if kind not in KINDS:
        known = ", ".join([*KINDS, "real floating", "numeric"])
        raise UsageError("there is no such kind of dtypes", declared=known, seen=repr(kind))
    found: bool = dtype.kind in KINDS[kind]
    return found


def can_cast(from_: Any, to: Any, /) -> bool:
    """Tell whether a dtype, or a tensor's, becomes another without loss of kind or range."""
    return bool(np.can_cast(dtype_of(from_), as_dtype(to)))


def result_type(*arrays_and_dtypes: Any) -> DType:
    """Give the dtype that tensors, dtypes and numbers beside them promote to.

    A scalar of NumPy is the Python number of its value, as it is to operators.

    Raises:
        UsageError: nothing is given, or only numbers.
        UsageTypeError: they have no common dtype.
    """
    numbers = (bool, int, float, complex)
    values = [x.item() if isinstance(x, np.generic) else x for x in arrays_and_dtypes]
    given = [x if type(x) in numbers else dtype_of(x) for x in values]
    dtypes = [x for x in given if type(x) not in numbers]
    if not dtypes:
        raise UsageError("a dtype comes of at least one tensor or dtype", seen=f"{given}")
    try:
        common = np.result_type(*dtypes)
        # Beside a small float, of which NumPy knows nothing, numbers are numbers of its dtype.
        fitting = (int, float) if common.kind == "V" else ()
        return np.result_type(common, *[x for x in given if type(x) not in fitting])
    except (TypeError, OverflowError) as error:
        raise UsageTypeError(f"these have no common dtype: {error}", seen=f"{given}") from None


def broadcast_shapes(*shapes: Any) -> Shape:
    """Give the shape that shapes broadcast to; sizes may be symbolic.

    Raises:
        ArgumentError: two sizes differ, and neither is one.
    """
    return broadcast("broadcast_shapes", *map(tuple, shapes)) if shapes else ()


__all__ = [
    "FInfo", "IInfo", "broadcast_shapes", "can_cast", "finfo", "iinfo", "isdtype",
    "result_type",
]  # fmt: skip
