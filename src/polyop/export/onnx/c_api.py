"""ONNX Runtime's interface for C, as far as operators of others need it, over `ctypes`.

NOTE [One line of C]
ONNX Runtime asks a shared library for a function `RegisterCustomOps`, and gives it the start of
its interface. Nothing else leads there: its Python module keeps it to itself. So a library of one
line is compiled when it is first needed, which hands the call on to Python.

The interface is a table of functions, to which new ones are only ever appended.
"""

from __future__ import annotations

import atexit
import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from polyop.errors import DelegateError

#: The version of the interface that is asked for; newer ones hold it whole.
VERSION = 17
Address = ctypes.c_void_p
_Size = ctypes.c_size_t
_WORD = ctypes.sizeof(Address)
_SOURCE = """
typedef void *(*handler)(void *, void *);
static handler registered;
void polyop_set(handler given) { registered = given; }
void *RegisterCustomOps(void *options, void *base) { return registered(options, base); }
"""


class _Function(NamedTuple):
    """A function of the table: its place, its result and its arguments."""

    place: int
    result: Any
    arguments: tuple[Any, ...]


_TABLE = {
    "CreateStatus": _Function(0, Address, (ctypes.c_int, ctypes.c_char_p)),
    "GetErrorMessage": _Function(2, ctypes.c_char_p, (Address,)),
    "CreateCustomOpDomain": _Function(26, Address, (ctypes.c_char_p, Address)),
    "CustomOpDomain_Add": _Function(27, Address, (Address, Address)),
    "AddCustomOpDomain": _Function(28, Address, (Address, Address)),
    "GetTensorMutableData": _Function(51, Address, (Address, Address)),
    "GetTensorElementType": _Function(60, Address, (Address, Address)),
    "GetDimensionsCount": _Function(61, Address, (Address, Address)),
    "GetDimensions": _Function(62, Address, (Address, Address, _Size)),
    "GetTensorTypeAndShape": _Function(65, Address, (Address, Address)),
    "KernelInfoGetAttribute_string": _Function(
        87, Address, (Address, ctypes.c_char_p, Address, Address)
    ),
    "KernelContext_GetInputCount": _Function(88, Address, (Address, Address)),
    "KernelContext_GetOutputCount": _Function(89, Address, (Address, Address)),
    "KernelContext_GetInput": _Function(90, Address, (Address, _Size, Address)),
    "KernelContext_GetOutput": _Function(91, Address, (Address, _Size, Address, _Size, Address)),
    "ReleaseStatus": _Function(93, None, (Address,)),
    "ReleaseTensorTypeAndShapeInfo": _Function(99, None, (Address,)),
}

#: By ONNX's number of a type: NumPy's dtype.
ELEMENTS: dict[int, np.dtype[Any]] = {
    number: np.dtype(kind)
    for number, kind in {
        1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32,
        7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
        14: np.complex64, 15: np.complex128, 16: ml_dtypes.bfloat16,
    }.items()
}  # fmt: skip
_FAILED = 1


class Api:
    """The functions of ONNX Runtime; each that can fail raises what it says."""

    def __init__(self, base: int) -> None:
        get: Any = ctypes.CFUNCTYPE(Address, ctypes.c_uint32)(_word(base))
        table = get(VERSION)
        self._functions = {
            name: ctypes.PYFUNCTYPE(f.result, *f.arguments)(_word(table + _WORD * f.place))
            for name, f in _TABLE.items()
        }

    def call(self, name: str, *args: Any) -> None:
        """Call a function that gives a status.

        Raises:
            DelegateError: it failed.
        """
        status = self._functions[name](*args)
        if status:
            text = self._functions["GetErrorMessage"](status).decode()
            self._functions["ReleaseStatus"](status)
            raise DelegateError("ONNX Runtime refuses", seen=text)

    def failure(self, text: str) -> int:
        """Make the status of a failure."""
        made: int = self._functions["CreateStatus"](_FAILED, text.encode())
        return made

    def address(self, name: str, *args: Any) -> int:
        """Call a function that writes an address into its last argument."""
        found = Address()
        self.call(name, *args, ctypes.byref(found))
        return found.value or 0

    def count(self, name: str, *args: Any) -> int:
        """Call a function that writes a count into its last argument."""
        found = _Size()
        self.call(name, *args, ctypes.byref(found))
        return found.value

    # -- kernels --------------------------------------------------------------

    def attribute(self, info: int, name: str) -> str:
        """Give an attribute of a node, a text."""
        length = _Size()
        self.call("KernelInfoGetAttribute_string", info, name.encode(), None, ctypes.byref(length))
        text = ctypes.create_string_buffer(length.value)
        self.call("KernelInfoGetAttribute_string", info, name.encode(), text, ctypes.byref(length))
        return text.value.decode()

    def inputs(self, context: int) -> list[np.ndarray[Any, Any]]:
        """Give the inputs of a call: arrays over ONNX Runtime's memory, not to be written."""
        n = self.count("KernelContext_GetInputCount", context)
        return [self._array(self.address("KernelContext_GetInput", context, i)) for i in range(n)]

    def _array(self, value: int) -> np.ndarray[Any, Any]:
        dtype, shape = self._type_and_shape(value)
        found = self._over(value, dtype, shape)
        found.flags.writeable = False
        return found

    def _over(self, value: int, dtype: np.dtype[Any], shape: Any) -> np.ndarray[Any, Any]:
        length = prod(shape) * dtype.itemsize
        if length == 0:  # it may have no address
            return np.empty(shape, dtype)
        start = self.address("GetTensorMutableData", value)
        return np.ndarray(shape, dtype, (ctypes.c_char * length).from_address(start))

    def _type_and_shape(self, value: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
        info = self.address("GetTensorTypeAndShape", value)
        try:
            kind = ctypes.c_int()
            self.call("GetTensorElementType", info, ctypes.byref(kind))
            n = self.count("GetDimensionsCount", info)
            sizes = (ctypes.c_int64 * n)()
            self.call("GetDimensions", info, sizes, n)
        finally:
            self._functions["ReleaseTensorTypeAndShapeInfo"](info)
        if kind.value not in ELEMENTS:
            raise DelegateError(
                "an operator gets tensors of numbers", seen=f"ONNX's type {kind.value}"
            )
        return ELEMENTS[kind.value], tuple(sizes)

    def give(self, context: int, number: int, result: np.ndarray[Any, Any]) -> None:
        """Give a result of a call.

        Raises:
            DelegateError: the model says that it has another dtype.
        """
        sizes = (ctypes.c_int64 * result.ndim)(*result.shape)
        value = self.address("KernelContext_GetOutput", context, number, sizes, result.ndim)
        dtype, shape = self._type_and_shape(value)
        if dtype != result.dtype:
            raise DelegateError(
                f"result {number} has another dtype than the model says",
                declared=dtype,
                seen=result.dtype,
                fix="correct the fake rule of the operator, and export the model again",
            )
        self._over(value, dtype, shape)[...] = result


def _word(address: int) -> int:
    return Address.from_address(address).value or 0


@cache
def shim() -> tuple[str, Callable[[Any], None]]:
    """Give the library that ONNX Runtime loads, and what sets its function.

    Raises:
        DelegateError: there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise DelegateError(
            "ONNX Runtime takes operators only from a shared library, of one line of C, and there "
            "is no C compiler to build it",
            declared="cc, gcc or clang on the PATH",
            fix="install one",
        )
    folder = Path(tempfile.mkdtemp(prefix="polyop-onnx-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    source, shared = folder / "shim.c", folder / "shim.so"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", source, "-o", shared], check=True)  # noqa: S603 - our own text
    return str(shared), ctypes.PyDLL(str(shared)).polyop_set
