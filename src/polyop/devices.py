"""The small values of the operator language: devices, layouts, memory formats.

They sit on the ground floor because schemas have defaults of these types.
Dtypes are NumPy's own dtype objects, with those of `ml_dtypes` beside them.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

import numpy as np

from polyop.errors import UsageError, UsageTypeError, nearest
from polyop.lazy import load

#: Device types, in the order of their backends (SPEC S70, S74).
DEVICE_TYPES = ("cpu", "cuda", "xla", "mps", "xpu", "privateuseone", "meta")

_renamed: dict[str, str] = {}
_made: dict[tuple[str, int | None], Device] = {}


def _is_torchs(value: Any, name: str) -> bool:
    """Tell whether a value is PyTorch's word for a dtype, or a device."""
    kind = type(value)
    return kind.__module__ == "torch" and kind.__name__ == name


class Device:
    """A device: its type and, where there are several, its index.

    Equal devices are one object, so that `is` compares them.

    Args:
        type: a device type, or `"type:index"`, or a device, PyTorch's too.
        index: the number of the device.

    Raises:
        UsageError: for an unknown device type.
        UsageTypeError: for an object that names no device.
    """

    __slots__ = ("index", "type")
    type: str
    index: int | None

    def __new__(cls, type: Any, index: int | None = None) -> Device:
        """Give the one object of a device."""
        if isinstance(type, Device):
            return type
        if _is_torchs(type, "device"):
            type, index = type.type, type.index
        if not isinstance(type, str):
            raise UsageTypeError("a device is given by name", seen=f"{type!r}", fix='write "cpu"')
        name, _, number = type.partition(":")
        name = _renamed.get(name, name)
        if name not in DEVICE_TYPES or (number and not number.isdigit()):
            raise UsageError(
                f"{type!r} is no device{nearest(name, DEVICE_TYPES)}",
                declared=", ".join(DEVICE_TYPES),
            )
        key = (name, int(number) if number else index)
        if key not in _made:
            self = object.__new__(cls)
            self.type, self.index = key
            _made[key] = self
        return _made[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return (Device, (self.type, self.index))

    def __deepcopy__(self, memo: Any) -> Device:
        return self

    def __str__(self) -> str:
        shown = next((k for k, v in _renamed.items() if v == self.type), self.type)
        return shown if self.index is None else f"{shown}:{self.index}"

    def __repr__(self) -> str:
        return f"device({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return other == str(self) or other == (self.type if self.index is None else "")
        return self is other

    __hash__ = object.__hash__  # one object for each device


CPU = Device("cpu")
META = Device("meta")


def rename_device(device_type: str, name: str) -> None:
    """Let `name` stand for a device type (SPEC S75)."""
    _renamed[name] = Device(device_type).type


class Layout(Enum):
    """How the elements of a tensor are laid out."""

    strided = "strided"
    sparse_coo = "sparse_coo"
    sparse_csr = "sparse_csr"

    def __str__(self) -> str:
        return self.value


class MemoryFormat(Enum):
    """The order in which a new tensor keeps its axes."""

    contiguous_format = "contiguous_format"
    preserve_format = "preserve_format"
    channels_last = "channels_last"

    def __str__(self) -> str:
        return self.value


DType = np.dtype[Any]

#: The dtypes of `small_floats.py`, which is read when one is first asked for.
SMALL_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
_NUMPY = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
]


class Dtypes(dict[str, DType]):
    """Every dtype by its name; small floats come when they are first asked for."""

    def __missing__(self, name: str) -> DType:
        if name not in SMALL_FLOATS:
            raise KeyError(name)
        found: DType = load(f"polyop.small_floats:{name}")
        self[name] = found
        return found

    def find(self, name: str) -> DType | None:
        """Give the dtype of a name, or None."""
        return self[name] if name in self or name in SMALL_FLOATS else None


DTYPES = Dtypes({name: np.dtype(name) for name in _NUMPY})
#: Other names of dtypes, as PyTorch has them.
DTYPE_ALIASES = {
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "cfloat": "complex64",
    "cdouble": "complex128",
}
for _alias, _name in DTYPE_ALIASES.items():
    DTYPES[_alias] = DTYPES[_name]

_PYTHON_DTYPES: dict[Any, str] = {
    bool: "bool",
    int: "int64",
    float: "float64",
    complex: "complex128",
}


def as_dtype(value: Any) -> DType:
    """Give the dtype that a dtype, PyTorch's too, its name, or a Python type stands for.

    Raises:
        UsageTypeError: for anything else.
    """
    if isinstance(value, np.dtype):
        return value
    if _is_torchs(value, "dtype"):
        value = str(value)
    if isinstance(value, str):
        name = re.sub(r"^(torch|polyop|numpy|np|jnp)\.", "", value)
        named = DTYPES.find(name)
        if named is not None:
            return named
        raise UsageTypeError(f"{value!r} is no dtype{nearest(name, (*DTYPES, *SMALL_FLOATS))}")
    # NumPy makes records of some containers, and asks an array for its own.
    array = hasattr(value, "shape") and not isinstance(value, type)
    if array or isinstance(value, (list, tuple, dict, set)):
        raise UsageTypeError("not a dtype", seen=repr(value), fix='give one, such as "float32"')
    if value in _PYTHON_DTYPES:
        return DTYPES[_PYTHON_DTYPES[value]]
    try:
        found: DType = np.dtype(value)
    except TypeError:
        raise UsageTypeError("not a dtype", seen=repr(value)) from None
    if found.kind not in "biufcV":
        raise UsageTypeError("not a dtype of numbers", seen=repr(value))
    return found
