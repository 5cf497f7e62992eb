"""The structures of `include/polyop.h`, and Python values in them.

Whatever is put into a structure must live as long as the call: structures hold
addresses, so `Values` keeps the objects behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    Union,
    addressof,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
    cast,
)
from typing import Any

import numpy as np

from polyop.devices import DTYPES, DType

#: `POLYOP_ABI_VERSION` of the header beside this package.
ABI_VERSION = 1

# The kinds of values.
NONE, INT, FLOAT, BOOL, COMPLEX, STRING, DTYPE, TENSOR, LIST = range(9)
#: The flag of values that the kernel may write.
WRITTEN = 1
#: The flag of operators whose kernel takes any strides.
STRIDED = 1

#: DLPack's code of each dtype; bool has eight bits.
_CODES = {
    **{DTYPES[f"int{n}"]: 0 for n in (8, 16, 32, 64)},
    **{DTYPES[f"uint{n}"]: 1 for n in (8, 16, 32, 64)},
    **{DTYPES[f"float{n}"]: 2 for n in (16, 32, 64)},
    DTYPES["bfloat16"]: 4,
    **{DTYPES[f"complex{n}"]: 5 for n in (64, 128)},
    DTYPES["bool"]: 6,
    DTYPES["float8_e4m3fn"]: 10,
    DTYPES["float8_e5m2"]: 12,
}
_DTYPES = {(code, 8 * dtype.itemsize): dtype for dtype, code in _CODES.items()}
_CPU = 1


class DLDevice(Structure):
    """Where a tensor's data is."""

    _fields_ = [("device_type", c_int32), ("device_id", c_int32)]


class DLDataType(Structure):
    """A dtype: its code, the bits of one element, and the elements of one vector."""

    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]


class DLTensor(Structure):
    """A tensor, as DLPack has it."""

    _fields_ = [
        ("data", c_void_p),
        ("device", DLDevice),
        ("ndim", c_int32),
        ("dtype", DLDataType),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class _List(Structure):
    _fields_ = [("items", c_void_p), ("count", c_int64)]


class _As(Union):
    _fields_ = [
        ("integer", c_int64),
        ("number", c_double),
        ("parts", c_double * 2),
        ("text", c_char_p),
        ("dtype", DLDataType),
        ("tensor", POINTER(DLTensor)),
        ("list", _List),
    ]


class Value(Structure):
    """An argument or a result."""

    _anonymous_ = ("as_",)
    _fields_ = [("kind", c_int32), ("flags", c_uint32), ("as_", _As)]


class Call(Structure):
    """What a kernel is given to report errors and to make results."""


#: `PolyopCall.make`; the call is given as its address.
MAKE = CFUNCTYPE(c_int, c_void_p, c_int32, DLDataType, c_int32, POINTER(c_int64))
Call._fields_ = [
    ("error", c_char_p),
    ("error_size", c_uint64),
    ("make", MAKE),
    ("reserved", c_void_p * 4),
]
#: `PolyopFunction`.
FUNCTION = CFUNCTYPE(c_int, POINTER(Call), POINTER(Value), POINTER(Value))


class CLibrary(Structure):
    """What `polyop_library()` points to."""

    _fields_ = [
        ("abi_version", c_uint32),
        ("operator_size", c_uint32),
        ("operators", c_void_p),
        ("count", c_uint64),
    ]


class COperator(Structure):
    """One line of a library's list."""

    _fields_ = [
        ("file", c_char_p),
        ("line", c_int32),
        ("flags", c_uint32),
        ("schema", c_char_p),
        ("kernel", c_void_p),
        ("like", c_char_p),
        ("shape", c_void_p),
        ("key", c_char_p),
        ("dtypes", c_char_p),
    ]


class UnfitError(ValueError):
    """A value that C cannot be given, and why."""


def dtype_of(given: DLDataType) -> DType:
    """Give the dtype that a library names.

    Raises:
        UnfitError: there is none.
    """
    found = _DTYPES.get((given.code, given.bits))
    if found is None or given.lanes not in {0, 1}:
        raise UnfitError(f"no dtype has code {given.code}, {given.bits} bits, {given.lanes} lanes")
    return found


def dl_dtype(dtype: DType) -> DLDataType:
    """Give a dtype as DLPack has it.

    Raises:
        UnfitError: DLPack has no such dtype.
    """
    code = _CODES.get(dtype)
    if code is None:
        raise UnfitError(f"kernels in C take no {dtype!r}")
    return DLDataType(code, 8 * dtype.itemsize, 1)


class Values:
    """An array of values for C, and all that its addresses point to."""

    __slots__ = ("_addresses", "_kept", "array")

    def __init__(self, count: int) -> None:
        self.array = (Value * count)()
        self._kept: list[Any] = []
        self._addresses: list[tuple[DLTensor, int]] = []

    def fill(self, given: Sequence[Any], flags: Sequence[int]) -> None:
        """Put Python values in; tensors get their data later, from `show_data`.

        Raises:
            UnfitError: a value has no place in C.
        """
        for value, flag, target in zip(given, flags, self.array, strict=True):
            self.put(target, value, flag)

    def put(self, target: Value, value: Any, flag: int = 0) -> None:
        """Put one value in."""
        put = _PUT.get(value.__class__)
        if put is None:
            put = next((p for c, p in _PUT.items() if isinstance(value, c)), None)
        if put is None:
            raise UnfitError(f"kernels in C take no {type(value).__name__}")
        put(self, target, value, flag)

    def show_data(self) -> None:
        """Let the tensors have their data."""
        for tensor, address in self._addresses:
            tensor.data = address

    def _none(self, target: Value, value: None, flag: int) -> None:
        target.kind = NONE

    def _bool(self, target: Value, value: bool, flag: int) -> None:
        target.kind, target.integer = BOOL, value

    def _int(self, target: Value, value: int, flag: int) -> None:
        if not -(2**63) <= value < 2**63:
            raise UnfitError(f"{value} has more than 64 bits")
        target.kind, target.integer = INT, value

    def _float(self, target: Value, value: float, flag: int) -> None:
        target.kind, target.number = FLOAT, value

    def _complex(self, target: Value, value: complex, flag: int) -> None:
        target.kind = COMPLEX
        target.parts[:] = (value.real, value.imag)

    def _text(self, target: Value, value: str, flag: int) -> None:
        data = value.encode()
        if b"\0" in data:
            raise UnfitError(f"{value!r:.80} has a zero inside, where a text ends in C")
        target.kind, target.text = STRING, data
        self._kept.append(data)

    def _dtype(self, target: Value, value: DType, flag: int) -> None:
        target.kind, target.dtype = DTYPE, dl_dtype(value)

    def _list(self, target: Value, value: Sequence[Any], flag: int) -> None:
        inner = (Value * len(value))()
        for one, item in zip(inner, value, strict=True):
            self.put(one, item, flag)
        target.kind, target.flags = LIST, flag
        target.list.items, target.list.count = addressof(inner), len(value)
        self._kept.append(inner)

    def _tensor(self, target: Value, value: np.ndarray[Any, Any], flag: int) -> None:
        strides = [s // value.itemsize for s in value.strides]
        tensor = self.tensor(target, value.shape, value.dtype, flag, strides)
        self._addresses.append((tensor, value.__array_interface__["data"][0]))
        self._kept.append(value)

    def _shaped(self, target: Value, value: Shaped, flag: int) -> None:
        self.tensor(target, value.shape, value.dtype, flag)

    def tensor(
        self,
        target: Value,
        shape: Sequence[int],
        dtype: DType,
        flag: int,
        strides: Sequence[int] | None = None,
    ) -> DLTensor:
        """Put in a tensor without data, contiguous if no strides are given."""
        n = len(shape)
        sizes = (c_int64 * (2 * n))(*shape, *(contiguous(shape) if strides is None else strides))
        start = addressof(sizes)
        tensor = DLTensor(
            None,
            DLDevice(_CPU, 0),
            n,
            dl_dtype(dtype),
            cast(start, POINTER(c_int64)),
            cast(start + 8 * n, POINTER(c_int64)),
            0,
        )
        target.kind, target.flags = TENSOR, flag
        target.tensor.contents = tensor
        self._kept += (sizes, tensor)
        return tensor


class Shaped:
    """A tensor of which only shape and dtype are known."""

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: Sequence[int], dtype: DType) -> None:
        self.shape = shape
        self.dtype = dtype


def contiguous(shape: Sequence[int]) -> list[int]:
    """Give the strides of a contiguous tensor, in elements."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return strides[::-1]


_PUT: dict[type, Any] = {
    np.ndarray: Values._tensor,
    bool: Values._bool,
    int: Values._int,
    float: Values._float,
    type(None): Values._none,
    list: Values._list,
    tuple: Values._list,
    complex: Values._complex,
    str: Values._text,
    Shaped: Values._shaped,
    np.dtype: Values._dtype,
}
