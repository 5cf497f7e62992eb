"""What the Array API standard asks of a namespace and of an array, beside functions.

Memory is exchanged by DLPack through NumPy, whose arrays our tensors on the CPU are.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from polyop.devices import CPU, META, Device, DType, as_dtype
from polyop.dispatch.bind import ALONE
from polyop.dispatch.bits import OTHER
from polyop.dispatch.parts import PARTS
from polyop.errors import ArgumentError, UsageError
from polyop.lazy import load
from polyop.ops import comparison, rounding, select, sets, views
from polyop.ops.creation import on_device
from polyop.ops.define import operator_of
from polyop.ops.factories import COMPLEX64, FLOAT32, INT64
from polyop.ops.method_words import attach
from polyop.tensor.tensor import Tensor

#: The version of the standard that is answered, and those that may be asked for.
VERSION = "2024.12"
VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")


class NamespaceInfo:
    """What this library has of the standard's choices."""

    names: ClassVar[tuple[str, ...]] = (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float32", "float64", "complex64", "complex128"),
    )

    def capabilities(self) -> dict[str, Any]:
        """Tell what is there that the standard leaves open."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Device:
        """Give the device of new tensors."""
        return CPU

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """Give the dtypes of new tensors, by kind."""
        self._known(device)
        return {
            "real floating": FLOAT32,
            "complex floating": COMPLEX64,
            "integral": INT64,
            "indexing": INT64,
        }

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        """Give the standard's dtypes by name, or those of a kind.

        Raises:
            UsageError: there is no such device or kind.
        """
        self._known(device)
        found = {name: np.dtype(name) for name in self.names}
        if kind is None:
            return found
        isdtype = load("polyop.ops.dtypes:isdtype")
        return {name: dtype for name, dtype in found.items() if isdtype(dtype, kind)}

    def devices(self) -> list[Device]:
        """List the devices whose tensors hold data; programs compute on each of them."""
        return [CPU]

    def _known(self, device: Any) -> None:
        if device is not None and Device(device) not in {CPU, META}:
            raise UsageError("there is no such device", declared="cpu, meta", seen=device)


def __array_namespace_info__() -> NamespaceInfo:  # noqa: N807 - the standard's name
    """Give what this library has of the standard's choices."""
    return NamespaceInfo()


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """Convert to a dtype.

    Args:
        x: a tensor.
        dtype: what its elements become.
        copy: whether a tensor that has this dtype already is copied.
        device: where the result is.

    Raises:
        UsageTypeError: it is no dtype.
    """
    dtype = as_dtype(dtype)
    made = x if not copy and dtype == x.dtype else rounding.astype(x, dtype)
    return made if device is None else on_device(made, device)


def reshape(x: Any, shape: Any, *, copy: bool | None = None) -> Any:
    """Give the elements in another shape.

    Args:
        x: a tensor.
        shape: the sizes, of which one may be -1; a number for one axis.
        copy: True for new memory, False for a view, None for a view where possible.

    Raises:
        ArgumentError: the number of elements differs, or there is no such view.
    """
    shape = [shape] if isinstance(shape, int) else shape
    if copy is None:
        return views.reshape(x, shape)
    return views.reshape(x, shape).clone() if copy else views.view(x, shape)


def array_namespace(self: Any, /, *, api_version: str | None = None) -> Any:
    """Give the namespace of the standard's functions: `polyop`.

    Raises:
        UsageError: another version of the standard is asked for.
    """
    if api_version is not None and api_version not in VERSIONS:
        raise UsageError(
            "there is no such version of the Array API here",
            declared=", ".join(VERSIONS),
            seen=api_version,
        )
    return load("polyop")


def dlpack(
    self: Any,
    /,
    *,
    stream: Any = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[Any, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """Export the memory; a copy of what is read-only, or has strides below zero.

    Consumers may know neither: they write the one, and end the process for the other.

    Args:
        self: a tensor with data.
        stream: None; there are no streams on the CPU.
        max_version: the greatest version of DLPack that the consumer knows.
        dl_device: the device the consumer wants, `(1, 0)`.
        copy: whether the memory is copied; None for if it must.

    Raises:
        UsageError: a stream is given.
        AutogradError: it requires grad.
        BufferError: another device is wanted, a copy is needed and refused, or DLPack has no word
            for the dtype.
    """
    if stream is not None and self.device is CPU:
        raise UsageError("memory on the CPU has no streams", argument="stream", seen=stream)
    if self.keys & OTHER:
        named = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        return load("polyop.payloads.exchange:export")(self, named)
    array = self.numpy()
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        if copy is False:
            raise BufferError("memory that is read-only, or backwards, is exported as a copy")
        array = array.copy()
    return array.__dlpack__(max_version=max_version, dl_device=dl_device, copy=copy)


def dlpack_device(self: Any, /) -> tuple[Any, int]:
    """Give the kind and the number of the device, as DLPack counts them."""
    if self.keys & OTHER:
        return load("polyop.payloads.exchange:device_of")(self)  # type: ignore[no-any-return]
    found: tuple[Any, int] = self._data("__dlpack_device__").__dlpack_device__()
    return found


# -- equality with what is no array ----------------------------------------------------


def _comparing(entry: Any) -> Any:
    """Make `==` or `!=`, which leave an object that is no array to Python."""

    def method(self: Any, other: Any, /) -> Any:
        try:
            return entry(self, other)
        except ArgumentError:
            known = isinstance(other, _COMPARED) or PARTS.is_array(other)
            own = any("__eq__" in c.__dict__ for c in type(other).__mro__[:-1])
            if known or (hasattr(other, "dtype") and not own):  # it would answer `is`
                raise
            return NotImplemented

    method.__name__, method.__doc__ = entry.__name__, entry.__doc__
    return method


#: What looks like data: Python's answer, that a list differs, would be a surprise.
_COMPARED = (list, tuple, int, float, complex, np.generic, Tensor)

# NumPy's `where(condition)`: the places where it holds.
ALONE[operator_of(select.where)] = sets.nonzero
attach("__eq__", _comparing(comparison.equal))
attach("__ne__", _comparing(comparison.not_equal))
attach("__array_namespace__", array_namespace)
attach("__dlpack__", dlpack)
attach("__dlpack_device__", dlpack_device)
__array_api_version__ = VERSION

__all__ = [
    "VERSION", "NamespaceInfo", "__array_api_version__", "__array_namespace_info__", "astype",
    "reshape",
]  # fmt: skip
