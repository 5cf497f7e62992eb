"""One foreign function of XLA, `polyop`, which runs the kernel of any operator on views of buffers.

A call carries its text (`forms.py`), by which the kernel is found: in this process, or in another
one that loads the program.

NOTE [The frame of a call]
XLA hands over structures of C, described in `xla/ffi/api/c_api.h`. Read as rows of 64-bit words
they cost a third of what named fields cost in `ctypes`. Only versions whose rows were seen are
read; under any other a call goes by JAX's own callbacks.
"""

from __future__ import annotations

import ctypes
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.ffi
import numpy as np

from polyop.devices import DTYPES
from polyop.lazy import load

TARGET = "polyop"
#: The versions of XLA's interface whose rows of words are as below.
VERSIONS = frozenset({(0, 3), (0, 5)})

WORD = ctypes.c_int64
ROWS: Any = [WORD * n for n in range(64)]
# Places in the row of a call, of a buffer, of the functions of XLA, and of a query.
EXTENSION, API, N_INPUTS, INPUTS, N_RESULTS, RESULTS, ATTRIBUTES = 1, 2, 7, 9, 12, 14, 20
CALL = ATTRIBUTES + 1
BUFFER_DTYPE, BUFFER_DATA, BUFFER_RANK, BUFFER_DIMS, BUFFER = 2, 3, 4, 5, 6
MAKE_ERROR = 6
METADATA, METADATA_VERSION = 3, 3
INTERNAL = 13  # the code of errors that are no fault of XLA's caller

#: The dtypes of buffers, by XLA's number.
DTYPE_OF = {
    code: DTYPES[name]
    for code, name in {
        1: "bool", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "uint8", 7: "uint16",
        8: "uint32", 9: "uint64", 10: "float16", 11: "float32", 12: "float64", 15: "complex64",
        16: "bfloat16", 18: "complex128", 19: "float8_e5m2", 20: "float8_e4m3fn",
    }.items()
}  # fmt: skip
KNOWN = frozenset(DTYPE_OF.values())
#: A table is begun anew when it has so many.
MOST = 1 << 12


def version_of_header() -> tuple[int, int] | None:
    """Give the version of XLA's interface that JAX ships, or None if it does not say."""
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    text = header.read_text() if header.exists() else ""
    found = re.findall(r"^#define XLA_FFI_API_(?:MAJOR|MINOR) (\d+)", text, re.MULTILINE)
    return (int(found[0]), int(found[1])) if len(found) == 2 else None


# -- buffers as arrays --------------------------------------------------------------------------


class Form(NamedTuple):
    """What the arrays over buffers of one shape and dtype are made with.

    Attributes:
        shape: of the array.
        dtype: its dtype.
        memory: the bytes of such a buffer, as a class of ctypes; None for none.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    memory: Any


_FORMS: dict[Any, Form] = {}


def _form(code: int, shape: tuple[int, ...]) -> Form:
    dtype = DTYPE_OF[code & 0xFFFFFFFF]
    n = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(_FORMS) >= MOST:
        _FORMS.clear()
    made = _FORMS[code, shape] = Form(shape, dtype, ctypes.c_char * n if n else None)
    return made


def _array(address: int) -> np.ndarray[Any, Any]:
    """Give a buffer as an array, without a copy."""
    _, _, code, data, rank, dims = ROWS[BUFFER].from_address(address)
    shape = tuple(ROWS[rank].from_address(dims)) if rank else ()
    form = _FORMS.get((code, shape)) or _form(code, shape)
    if form.memory is None:  # a buffer without elements may have no address
        return np.empty(shape, form.dtype)
    return np.ndarray(shape, form.dtype, form.memory.from_address(data))


def _row(n: int) -> Any:
    return ROWS[n] if n < len(ROWS) else WORD * n


def _arrays(n: int, address: int) -> list[np.ndarray[Any, Any]]:
    return [_array(a) for a in _row(n).from_address(address)] if n else []


#: What runs the calls of a text; by the text, and what makes it.
PLANS: dict[bytes, Any] = {}
PLAN = "polyop.bridges.jax.programs:plan_of"


# -- the foreign function -----------------------------------------------------------------------


def _handle(call: Any) -> int | None:
    """Answer XLA: nothing if all went well, else an error of its own."""
    words = call[:CALL]
    try:
        if words[EXTENSION] and _answered(words[EXTENSION]):
            return None
        span = WORD.from_address(words[ATTRIBUTES]).value
        text = ctypes.string_at(*ROWS[2].from_address(span))
        inputs = _arrays(words[N_INPUTS], words[INPUTS])
        places = _arrays(words[N_RESULTS], words[RESULTS])
        if text:
            (PLANS.get(text) or load(PLAN)(text)).run(inputs, places)
        else:
            _test(inputs, places)
    except BaseException as error:
        return _error(words[API], error)
    return None


def _answered(extension: int) -> bool:
    """Answer XLA's query for the version of its interface, if it is one."""
    while extension:
        size, kind, following, place = ROWS[4].from_address(extension)
        if kind & 0xFFFFFFFF == 1 and size >= 24:
            version = (ctypes.c_int32 * 2).from_address(place + 8 * METADATA_VERSION)
            version[:] = list(VERSION or (0, 0))
            # Of the traits none holds, and no state is kept between calls.
            ctypes.c_uint32.from_address(place + 8 * METADATA_VERSION + 8).value = 0
            return True
        extension = following
    return False


def _test(inputs: Sequence[Any], places: Sequence[Any]) -> None:
    """Double and triple an array, for the test of all this."""
    for i, place in enumerate(places):
        place[...] = inputs[0] * (i + 2)


def _error(api: int, error: BaseException) -> int:
    """Make an error of XLA; its text is Python's, with the author's lines."""
    try:
        text = "".join(traceback.format_exception(error)).encode()
    except BaseException:
        text = type(error).__name__.encode()
    given = ROWS[4](28, 0, ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p).value, INTERNAL)
    make: Callable[[int], int] = _MAKER(ROWS[MAKE_ERROR + 1].from_address(api)[MAKE_ERROR])
    return make(ctypes.addressof(given))


_MAKER = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_HANDLER: Any = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(WORD))(_handle)
VERSION = version_of_header()


def unreadable() -> str:
    """Say why frames of calls are not read here; an empty text if they are."""
    if VERSION not in VERSIONS:
        shown = "unknown" if VERSION is None else "{}.{}".format(*VERSION)
        return f"the version of XLA's foreign functions is {shown}, which was not seen working"
    if sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return "this machine has no words of 64 bits with the lowest byte first"
    return ""


def register() -> None:
    """Make the foreign function known to XLA."""
    address = ctypes.cast(_HANDLER, ctypes.c_void_p).value
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, WORD]
    jax.ffi.register_ffi_target(TARGET, make(address, None, 0), platform="cpu")


if not unreadable():
    register()
