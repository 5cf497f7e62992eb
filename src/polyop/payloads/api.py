"""Tensors of other libraries' arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.bits import WRAPPED
from polyop.errors import UsageTypeError
from polyop.payloads.exchange import note_taken
from polyop.payloads.held import Held, of_held
from polyop.payloads.libraries import library_of
from polyop.tensor.masked import check_unmasked
from polyop.tensor.tensor import Tensor, of_array


def from_array(array: Any) -> Tensor:
    """Give a tensor over an array of any library; nothing is copied.

    The array may be a tracer of JAX, a fake of PyTorch, or a value inside their transforms.

    Raises:
        UsageTypeError: it is no array of a library that is known or speaks the Array API.
        ArgumentError: its dtype has no counterpart in NumPy, or it is sparse, or masked.
    """
    if isinstance(array, Tensor):
        return array
    if isinstance(array, np.ndarray):
        check_unmasked(array)
        return of_array(array if array.__class__ is np.ndarray else array.view(np.ndarray))
    library = library_of(array)
    if library is None:
        raise UsageTypeError(
            "from_array takes an array of a library",
            declared="NumPy, PyTorch, JAX, Dask, CuPy, or a library of the Array API",
            seen=type(array).__name__,
            fix="call polyop.tensor for numbers and sequences",
        )
    library.check(array)
    return of_held(Held(array, library))


def to_array(tensor: Tensor) -> Any:
    """Give the array that a tensor is over: of its library, or NumPy's.

    Raises:
        UsageTypeError: it is no tensor, or has no array of its own: a fake, a value of a transform.
    """
    payload = getattr(tensor, "payload", None)
    if payload.__class__ is Held or payload.__class__ is np.ndarray:
        note_taken(tensor)
        return payload.array if payload.__class__ is Held else payload
    raise UsageTypeError(
        "to_array takes a tensor over an array",
        seen=repr(tensor)[:120],
        fix="return it from the transform, and call to_array on what comes out"
        if isinstance(tensor, Tensor) and tensor.keys & WRAPPED
        else "call polyop.tensor first",
    )
