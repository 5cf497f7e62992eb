"""The one place where data crosses between libraries, checked first.

What NumPy gets may be shared with the library and be read-only; `writable=True` asks for an array
that may be written, and gives one that is not seen by the library unless both share memory that
the library writes too. What a library gets is always its own memory: a read-only flag, strides
below zero or a life of the buffer are no affair of the receiver.

NOTE [Traps]
`torch.from_dlpack` of negative strides aborts the process; of a JAX array it writes into what JAX
takes for immutable; DLPack and `from_numpy` drop NumPy's read-only flag; JAX may alias aligned
NumPy memory; NumPy has no bfloat16 by DLPack; a tensor that requires grad, a conjugate or a
negative view has no NumPy array; arrays on other devices are not moved unasked.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np

from polyop.devices import CPU
from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import word
from polyop.errors import ArgumentError, AutogradError, DataDependentOutputError, UsageError
from polyop.payloads.libraries import library_of
from polyop.payloads.library import Array, Library

Numpy = np.ndarray[Any, Any]
#: What has taken data out of a library's graph, while a backward runs that its graph goes through.
LOOKS: ContextVar[list[str] | None] = ContextVar("looks", default=None)


def to_numpy(array: Array, *, writable: bool = False, what: str = "numpy") -> Numpy:
    """Give the data of any library's array as a NumPy array.

    Args:
        array: of a known library, or NumPy's.
        writable: whether it is going to be written; a copy is made if the memory must not be.
        what: looks at the data, in errors.

    Raises:
        ArgumentError: it is no array.
        DataDependentOutputError: it has no data: a tracer, or a fake.
        UsageError: it is on another device.
    """
    library = library_of(array)
    if library is None:
        if not isinstance(array, (np.ndarray, np.generic)) and not _is_typed_number(array):
            raise ArgumentError("no array of a known library", seen=type(array).__name__)
        found: Numpy = np.asarray(array, array.dtype)
    else:
        _check(array, library, what)
        found = library.to_numpy(array)
    return found.copy() if writable and not found.flags.writeable else found


def _is_typed_number(value: Any) -> bool:
    """Tell whether it is a number of Python with a dtype, as JAX has them among its literals."""
    return isinstance(value, (int, float, complex)) and isinstance(
        getattr(value, "dtype", None), np.dtype
    )


def _check(array: Array, library: Library, what: str) -> None:
    if not library.is_concrete(array):
        rule = word().rule
        raise DataDependentOutputError(
            f"{what}() looks at the data of an array that {library.name} only traces",
            op=rule.op.name() if rule is not None else "",
            seen=type(array).__name__,
            fix="compute it from shapes, or with operators that have a kernel for "
            f"{library.name}: polyop.extend.payload_route(op, {library.name!r})",
        )
    library.check(array)
    device = library.device(array)
    if device is not CPU:
        raise UsageError(
            f"{what}() would move an array of {library.name} from {device} to the CPU",
            seen=f"{type(array).__name__} on {device}",
            fix=f"move it first, with what {library.name} has for that",
        )


def from_numpy(library: Library, array: Any, like: Array = None) -> Array:
    """Give a NumPy array's data to a library, in memory of its own.

    Args:
        library: that gets it.
        array: NumPy's, of any strides and flags.
        like: an array on whose device, and of whose kind, the result is; None for the default.

    Raises:
        ArgumentError: the library has no such dtype.
    """
    return library.from_numpy(np.asarray(array), like)


def shared(array: Any, what: str, *, copy: bool | None = None, cut: bool = False) -> Any:
    """Give an array's data as a NumPy array, in the same memory where that can be.

    Args:
        array: of any library; of none that is known, it is given back.
        what: takes the array, in errors.
        copy: False where the memory must be the array's own.
        cut: whether the library's own gradients may end here.

    Raises:
        ArgumentError: it is sparse, masked, or its dtype has no counterpart in NumPy.
        AutogradError: gradients of the library would be lost.
        DataDependentOutputError: it has no data.
        UsageError: it is on another device, or computes its elements as they are read.
    """
    library = library_of(array)
    if library is None:
        return array
    dtype = library.dtype(array)
    _check(array, library, what)
    if not cut:
        way = "call .detach() first; or polyop.from_array, through which gradients flow"
        refuse_cut(array, library, what, way)
    kept = not library.writes or library.shares(library.plain(array), array)
    if copy is False and (library.lazy or not kept):
        raise UsageError(
            "the data cannot be shared: it is computed as it is read",
            seen=type(array).__name__,
            fix="leave out copy",
        )
    seen = library.to_numpy if library.writes or dtype.isbuiltin != 1 else np.asarray
    return seen(array)


def refuse_cut(
    array: Array, library: Library, what: str, fix: str = "call .detach() first"
) -> None:
    """Refuse that data leaves a library whose gradients would not see it.

    Inside a backward it is noted instead: the gradient is right, and only has none itself.

    Args:
        array: of the library.
        library: of the array.
        what: takes the data, in errors.
        fix: what to do instead.

    Raises:
        AutogradError: the library records what is computed of the array.
    """
    if is_cut(array, library, what):
        history = "requires grad" if array.requires_grad else "has a tangent"
        raise AutogradError(
            f"{what}() would cut the array from the gradients of {library.name}",
            seen=f"{type(array).__name__} that {history}",
            fix=fix,
        )


def is_cut(array: Array, library: Library, what: str) -> bool:
    """Tell whether a library's gradients would miss what is made of an array; see `refuse_cut`."""
    if not library.records(array):
        return False
    looks = LOOKS.get()
    if looks is None or not array.requires_grad:
        return True
    looks.append(what)
    return False


def note_taken(tensor: Any) -> None:
    """Tell who runs a `setup_context` that it takes the data of a tensor."""
    taking = word().taking
    if taking is not None:
        taking.note(tensor, "numpy")


# -- DLPack ---------------------------------------------------------------------------------


def export(tensor: Any, named: dict[str, Any]) -> Any:
    """Export a tensor over another library's array by DLPack.

    What is never written, is a recipe, or shares no memory with its base, goes as a copy: a
    consumer may not know what read-only is. So does what is conjugated or negated when it is read.

    Raises:
        AutogradError: it requires grad, in polyop or in its library.
        BufferError: a copy is refused, or the library cannot give it to the device.
    """
    held = tensor.payload
    if tensor.keys & GRAD and word().grad:
        raise AutogradError(
            "the data of a tensor that requires grad cannot be exported",
            fix="call .detach() first",
        )
    library: Library = held.library
    note_taken(tensor)
    refuse_cut(held.array, library, "__dlpack__")
    if library.writes and held.taken is None:
        given = {name: value for name, value in named.items() if value is not None}
        plain = library.plain(held.array)
        if named["copy"] is not False or library.shares(plain, held.array):
            return _exported(library, plain, given)
    if named["copy"] is False:
        raise BufferError(f"memory of {library.name} is not exported without a copy")
    return np.array(to_numpy(held.array)).__dlpack__(**named)


def _exported(library: Library, array: Array, given: dict[str, Any]) -> Any:
    try:
        return array.__dlpack__(**given)
    except (RuntimeError, ValueError) as error:
        wanted = f" to the device {given['dl_device']}" if "dl_device" in given else ""
        place = library.device(array)
        raise BufferError(f"memory of {library.name} on {place} is not exported{wanted}") from error


def device_of(tensor: Any) -> tuple[Any, int]:
    """Give the device as DLPack counts them."""
    held = tensor.payload
    if held.library.writes:
        found: tuple[Any, int] = held.array.__dlpack_device__()
        return found
    return np.empty(0).__dlpack_device__()
