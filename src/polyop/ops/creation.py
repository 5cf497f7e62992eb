"""Making tensors from data, and from arrays of other libraries.

Filled tensors (`zeros`, ...) are in `ops/factories.py` and `ops/likes.py`, and can be had here too.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from polyop.devices import DType, as_dtype
from polyop.dispatch.context import word
from polyop.dispatch.parts import PARTS
from polyop.errors import IntegerRangeError, UsageError, UsageTypeError
from polyop.lazy import load
from polyop.ops.constants import TRACED, constant, noted
from polyop.ops.define import ON_TENSORS
from polyop.ops.factories import (
    COMPLEX64,
    FLOAT32,
    INT64,
    arange,
    dtype_of_number,
    empty,
    eye,
    full,
    linspace,
    on_device,
    on_meta,
    ones,
    zeros,
)
from polyop.ops.likes import empty_like, full_like, new_full, ones_like, zeros_like
from polyop.ops.splitting import sizes_of
from polyop.ops.views import detach
from polyop.schema.base_values import Known
from polyop.symbolic import SymInt
from polyop.tensor.masked import check_unmasked
from polyop.tensor.tensor import Tensor, of_array

__all__ = [
    "COMPLEX64", "FLOAT32", "INT64", "arange", "as_tensor", "asarray", "dtype_of_number",
    "empty", "empty_like", "eye", "from_dlpack", "from_numpy", "full", "full_like", "linspace",
    "new_elsewhere", "new_full", "on_device", "on_meta", "ones", "ones_like", "tensor", "zeros",
    "zeros_like",
]  # fmt: skip
Array = Any


#: Read once: a look into a module costs as much as half of the rest.
ndarray = np.ndarray


def from_numpy(array: Any) -> Tensor:
    """Wrap a NumPy array; the memory is shared. A scalar of NumPy becomes an array without axes.

    Kernels give their results by it, so it does not look at the dtype, as `asarray` does.

    Raises:
        UsageTypeError: it is no NumPy array.
        ArgumentError: it is a masked one.
    """
    if array.__class__ is not ndarray:
        array = _plain_array(array)
    t = Tensor()
    t.payload = array
    t.keys = 1
    t.version = 0
    return noted(t, shared=True) if word() & TRACED else t


def _plain_array(array: Any) -> Array:
    if isinstance(array, np.generic):  # what NumPy makes of arrays without axes
        array = np.asarray(array)
    if not isinstance(array, np.ndarray):
        raise UsageTypeError(
            "from_numpy takes a NumPy array", seen=type(array).__name__, fix="call polyop.tensor"
        )
    check_unmasked(array)
    _check_numbers(array, array)
    return array.view(np.ndarray)


def _check_numbers(array: Array, given: Any) -> None:
    """Refuse text, objects, times and records; small floats are of the kind of the last."""
    if array.dtype.kind not in "biufcV" or array.dtype.type is np.void:
        raise UsageTypeError(
            "the data is no array of numbers", seen=f"{type(given).__name__} of {array.dtype}"
        )


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Any:
    """Wrap an array of another library by its memory.

    Raises:
        UsageTypeError: it has no DLPack.
        AutogradError: gradients of its library would be lost.
    """
    if not hasattr(x, "__dlpack__"):
        raise UsageTypeError(
            "from_dlpack takes an array of a library that has DLPack",
            seen=type(x).__name__,
            fix="call polyop.asarray",
        )
    found = _of_library(x, "from_dlpack", copy=copy)
    if found.__class__ is not ndarray or found.dtype.isbuiltin == 1:
        made = noted(of_array(np.from_dlpack(found, copy=copy)), shared=not copy)
    else:  # NumPy's DLPack has no word for the dtype
        made = noted(of_array(found.copy() if copy else found), shared=not copy)
    return made if device is None else on_device(made, device)


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Any:
    """Make a tensor of numbers, nested sequences or an array; the data is copied.

    Raises:
        UsageTypeError: the data is no array of numbers.
        ArgumentError: it is an array over which no tensor can be, as a masked one.
    """
    array = _of_numbers(data) if dtype is None and device is None else None
    if array is not None:
        made: Any = constant(array)
    elif isinstance(data, Tensor):
        made = _converted(detach(data), dtype, device, copy=True)
    else:
        made = _placed(np.array(_as_array(_of_library(data, "tensor", cut=True), dtype)), device)
    return made.requires_grad_() if requires_grad else made


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
    """Give a tensor of some data, which is shared if possible, and if `copy` does not say else.

    Gradients flow to the tensors in a sequence; `tensor` cuts them off.

    Raises:
        UsageError: `copy` is false, and the data cannot be shared.
        AutogradError: it is of a library whose gradients would be lost.
        ArgumentError: it is an array over which no tensor can be, as a masked one.
    """
    if dtype is None and device is None and copy is not False:
        array = _of_numbers(obj)
        if array is not None:
            return constant(array)
    if isinstance(obj, Tensor):
        return _converted(obj, dtype, device, copy)
    obj = _of_library(obj, "asarray", copy=copy)
    if copy is not False and _holds_tensors(obj):
        dtype = common_dtype(obj) if dtype is None else as_dtype(dtype)
        return _converted(_stacked(obj, dtype), None, device, None)
    array = _as_array(obj, dtype)
    shared = not isinstance(obj, _PLAIN) and _is_shared(array, np.asarray(obj))
    if copy is False and not shared:
        raise UsageError("the data cannot be shared", seen=type(obj).__name__, fix="leave out copy")
    if copy and shared:
        return _placed(array.copy(), device)
    return _placed(array, device, shared=shared)


def _is_shared(array: Array, given: Array) -> bool:
    """Tell whether an array is the memory that was given; without elements there is none to be."""
    if not array.size:
        return bool(array.dtype == given.dtype)
    return np.may_share_memory(array, given)


def _of_library(data: Any, what: str, *, copy: bool | None = None, cut: bool = False) -> Any:
    """Give data with NumPy's arrays in the place of other libraries'."""
    if isinstance(data, np.ndarray):
        check_unmasked(data)
    elif isinstance(data, (list, tuple)):
        if not _NUMBERS.issuperset(map(type, data)):
            return [_of_library(x, what, copy=copy, cut=cut) for x in data]
    elif PARTS.is_array(data):
        return load("polyop.payloads.exchange:shared")(data, what, copy=copy, cut=cut)
    return data


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Any:
    """Give a tensor of some data, which is shared if possible."""
    return asarray(data, dtype=dtype, device=device)


def _converted(x: Any, dtype: Any, device: Any, copy: bool | None) -> Any:
    if dtype is not None and as_dtype(dtype) != x.dtype:
        if copy is False:
            raise UsageError("another dtype needs a copy", declared=x.dtype, seen=dtype)
        x = ON_TENSORS["astype"](x, as_dtype(dtype))
    elif copy:
        x = ON_TENSORS["clone"](x)
    return x if device is None else on_device(x, device)


def new_elsewhere(self: Any, size: tuple[Any, ...], value: Any, dtype: DType) -> Any:
    """Make a tensor whose sizes are another library's symbols: NumPy would ask for their values."""
    if value is None:
        size, value = size[:-1], size[-1]
    sizes = sizes_of(size)
    if not any(isinstance(n, Known.sym_int) and not isinstance(n, SymInt) for n in sizes):
        return None
    payload = self.payload
    array = payload.library.full(sizes, value, dtype, payload.array)
    return load("polyop.payloads.held:of_held")(type(payload)(array, payload.library))


def _of_numbers(data: Any) -> Array | None:
    """Make an array of a list of Python's numbers, or of lists of them; None for other data."""
    if data.__class__ is not list:
        return None
    kinds = set(map(type, data))
    if list in kinds and len(kinds) == 1:
        kinds = set(map(type, chain.from_iterable(data)))
    if not kinds or not kinds <= _NUMBERS:
        return None
    array = np.asarray(data)
    dtype = array.dtype
    if dtype is _FLOAT64 and float in kinds:  # else integers that are too large
        return array.astype(FLOAT32)
    if dtype is _COMPLEX128:
        return array.astype(COMPLEX64)
    return array if dtype is INT64 or dtype is _BOOL else None


_FLOAT64, _COMPLEX128, _BOOL = np.dtype(np.float64), np.dtype(np.complex128), np.dtype(np.bool_)


def _as_array(data: Any, dtype: Any) -> Array:
    wanted = common_dtype(data) if dtype is None else as_dtype(dtype)
    if not isinstance(data, np.ndarray) and _holds_tensors(data):
        data = _bare(data)
    try:
        array = np.asarray(data) if wanted is None else np.asarray(data, wanted)
    except OverflowError as error:
        seen = f"{data!r:.80}"
        raise IntegerRangeError(f"an integer is outside {wanted}", seen=seen) from error
    if wanted is None and _kind(array) in _INEXACT and _is_beyond(data, array):
        raise IntegerRangeError("an integer is outside 64 bits", seen=f"{data!r:.80}")
    _check_numbers(array, data)
    if wanted is None and not _has_dtype(data):
        array = array.astype(_DEFAULTS.get(_kind(array), array.dtype), copy=False)
    return array


#: What NumPy makes of integers that have no dtype in common.
_INEXACT = {("f", 8), ("O", 8)}


def _kind(array: Array) -> tuple[str, int]:
    """Give kind and size of the elements; to make the name of a dtype takes long."""
    return array.dtype.kind, array.dtype.itemsize


def _is_beyond(data: Any, array: Array) -> bool:
    """Tell whether data is integers alone, of which none of NumPy's dtypes has all."""
    if array.dtype.kind == "f" and not (np.abs(array) >= 2**63).any():
        return False
    found: set[Any] = set()
    _add_types([data], found)
    return found <= {int, bool} and int in found


_DEFAULTS = {("f", 8): FLOAT32, ("c", 16): COMPLEX64}
#: What has neither a dtype nor memory of its own; NumPy's numbers are of these kinds too.
_PLAIN = (int, float, complex, list, tuple)


def _has_dtype(data: Any) -> bool:
    """Tell whether data says what its elements are: an array, or a buffer."""
    if hasattr(data, "dtype") or isinstance(data, _PLAIN):
        return hasattr(data, "dtype")
    try:
        memoryview(data)
    except TypeError:
        return hasattr(data, "__array__")
    return True


def _holds_tensors(data: Any) -> bool:
    return isinstance(data, (list, tuple)) and any(
        isinstance(x, Tensor) or _holds_tensors(x) for x in data
    )


def common_dtype(data: Any) -> Any:
    """Give the dtype that the tensors and NumPy scalars in a sequence promote to.

    Python's numbers take part as they do beside a tensor. None if there is
    nothing else: such data gets a default.
    """
    found: set[Any] = set()
    _add_types(data, found)
    dtypes = {kind for kind in found if isinstance(kind, np.dtype)}
    numbers = found - dtypes
    if not dtypes or not numbers <= _NUMBERS:
        return None
    return np.result_type(*dtypes, *[kind(0) for kind in numbers])  # a Python number is weak


_NUMBERS = {bool, int, float, complex}


def _add_types(data: Any, found: set[Any]) -> None:
    """Add the dtypes, and the types of what has none, in nested sequences."""
    if not isinstance(data, (list, tuple)):
        return
    for kind in set(map(type, data)):
        if issubclass(kind, (list, tuple)):
            for part in data:
                _add_types(part, found)
        elif hasattr(kind, "dtype"):
            found |= {x.dtype for x in data if type(x) is kind}
        else:
            found.add(kind)


def _stacked(data: Any, dtype: Any) -> Any:
    """Join nested sequences of tensors and numbers along new axes."""
    if isinstance(data, (list, tuple)):
        return ON_TENSORS["stack"]([_stacked(part, dtype) for part in data])
    return asarray(data, dtype=dtype)


def _bare(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_bare(x) for x in data]
    return data.numpy(force=True) if isinstance(data, Tensor) else data


def _placed(array: Array, device: Any, *, shared: bool = False) -> Any:
    made = constant(array, shared=shared)
    return made if device is None else on_device(made, device)
