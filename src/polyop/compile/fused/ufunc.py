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
    library: ctypes.PyDLL,
    loop: str,
    inputs: Sequence[DType],
    outputs: Sequence[DType],
    axes: str = "",
) -> Ufunc:
    """Make the ufunc of a loop for one signature of dtypes.

    Args:
        library: where the loop is.
        loop: its name there.
        inputs: the dtypes of its inputs.
        outputs: the dtypes of its results.
        axes: the signature of a loop over more than elements, as `"(n)->()"`.
    """
    pointer = ctypes.cast(getattr(library, loop), c_void_p)
    loops, data = (c_void_p * 1)(pointer.value), (c_void_p * 1)(None)
    types = ctypes.create_string_buffer(bytes([np.dtype(d).num for d in [*inputs, *outputs]]))
    name, text = ctypes.create_string_buffer(b"fused"), ctypes.create_string_buffer(b"")
    given = [
        ctypes.addressof(loops), ctypes.addressof(data), ctypes.addressof(types), 1,
        len(inputs), len(outputs), -1, ctypes.addressof(name), ctypes.addressof(text), 0,
    ]  # fmt: skip
    if axes:
        signature = ctypes.create_string_buffer(axes.encode())
        call = _makers()[1](*given, ctypes.addressof(signature))
    else:
        call = _makers()[0](*given)
    return Ufunc(call, (library, loops, data, types, name, text))


@cache
def _makers() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Give NumPy's `PyUFunc_FromFuncAndData`, and what is that with a signature of axes.

    These are the functions 1 and 31 of its table, which NumPy keeps for all of its versions.
    """
    prototype = ctypes.PYFUNCTYPE(c_void_p, py_object, c_char_p)
    get = prototype(("PyCapsule_GetPointer", ctypes.pythonapi))
    table = ctypes.cast(
        get(load("numpy._core._multiarray_umath:_UFUNC_API"), None), POINTER(c_void_p)
    )
    kinds = [c_void_p] * 3 + [c_int] * 4 + [c_void_p] * 2 + [c_int]
    make, make_with_axes = PYFUNCTYPE(py_object, *kinds), PYFUNCTYPE(py_object, *kinds, c_void_p)
    return make(table[1]), make_with_axes(table[31])
