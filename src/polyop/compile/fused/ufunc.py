"""A C loop as a ufunc, made by NumPy's own function: no header of Python or NumPy is needed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, PYFUNCTYPE, c_char_p, c_int, c_void_p, py_object
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from polyop.devices import DType
from polyop.lazy import load


class Ufunc(NamedTuple):
    """A ufunc, and what lies in memory for it: NumPy copies nothing of that."""

    call: Callable[..., Any]
    kept: tuple[Any, ...]


def make_ufunc(
    library: ctypes.PyDLL, loop: str, inputs: Sequence[DType], outputs: Sequence[DType]
) -> Ufunc:
    """Make the ufunc of a loop for one signature of dtypes."""
    pointer = ctypes.cast(getattr(library, loop), c_void_p)
    loops, data = (c_void_p * 1)(pointer.value), (c_void_p * 1)(None)
    types = ctypes.create_string_buffer(bytes([np.dtype(d).num for d in [*inputs, *outputs]]))
    name, text = ctypes.create_string_buffer(b"fused"), ctypes.create_string_buffer(b"")
    call = _maker()(
        ctypes.addressof(loops), ctypes.addressof(data), ctypes.addressof(types), 1,
        len(inputs), len(outputs), -1, ctypes.addressof(name), ctypes.addressof(text), 0,
    )  # fmt: skip
    return Ufunc(call, (library, loops, data, types, name, text))


@cache
def _maker() -> Callable[..., Any]:
    """Give NumPy's `PyUFunc_FromFuncAndData`, the first function of its table after the type."""
    prototype = ctypes.PYFUNCTYPE(c_void_p, py_object, c_char_p)
    get = prototype(("PyCapsule_GetPointer", ctypes.pythonapi))
    table = ctypes.cast(
        get(load("numpy._core._multiarray_umath:_UFUNC_API"), None), POINTER(c_void_p)
    )
    make = PYFUNCTYPE(
        py_object, c_void_p, c_void_p, c_void_p, c_int, c_int, c_int, c_int, c_void_p, c_void_p,
        c_int,
    )  # fmt: skip
    return make(table[1])
