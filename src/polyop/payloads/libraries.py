"""Which library an array is of, decided in one place by its type.

Tracers, fake tensors and the wrapped values of transforms are instances of their library's array,
so they need no case of their own; only their data cannot be looked at (`is_concrete`).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from polyop.dispatch.parts import PARTS
from polyop.payloads.dask_arrays import Dask
from polyop.payloads.frameworks import Cupy, Jax, Torch
from polyop.payloads.library import Library

#: By the module that has the class of arrays: the class's name there, and the library.
LIBRARIES: dict[str, tuple[str, Library]] = {
    "torch": ("Tensor", Torch()),
    "jax": ("Array", Jax()),
    "dask.array": ("Array", Dask()),
    "cupy": ("ndarray", Cupy()),
}
#: By the type of an array: its library; None for what is no array.
_BY_TYPE: dict[type, Library | None] = {}
_BY_NAME: dict[str, Library] = {}


def library_of(value: Any) -> Library | None:
    """Give the library of an array; None for NumPy's, for tensors, and for what is no array."""
    kind = type(value)
    try:
        return _BY_TYPE[kind]
    except KeyError:
        found = _find(value)
    if found is not None or kind.__module__ in {"builtins", "numpy"}:
        _BY_TYPE[kind] = found
    return found


def _find(value: Any) -> Library | None:
    if isinstance(value, (np.ndarray, np.generic, PARTS.Tensor)):
        return None
    for module, (name, library) in LIBRARIES.items():
        loaded = sys.modules.get(module)
        cls = getattr(loaded, name, None)
        if cls is not None and isinstance(value, cls):
            return library
    return _by_namespace(value)


def _by_namespace(value: Any) -> Library | None:
    """Give the library of an array that is none of the known, but of the standard."""
    ask = getattr(type(value), "__array_namespace__", None)
    if ask is None:
        return None
    xp = ask(value)
    name = str(xp.__name__).partition(".")[0]
    if name not in _BY_NAME:
        _BY_NAME[name] = Library(lambda: xp, name)
    return _BY_NAME[name]
