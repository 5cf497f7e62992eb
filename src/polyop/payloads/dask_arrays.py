"""Dask's arrays: recipes, which are computed when data is looked at."""

from __future__ import annotations

import sys
from functools import cached_property, partial
from math import isnan
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.lazy import load
from polyop.ops.complex_parts import complex_kernel
from polyop.payloads.library import Array, Library
from polyop.payloads.unknown import UnknownSize
from polyop.tensor.masked import check_unmasked
from polyop.tree import map_leaves


class Dask(Library):
    """Dask: recipes in chunks, computed when data is looked at."""

    lazy = True

    def __init__(self) -> None:
        super().__init__(lambda: load("array_api_compat.dask.array"), "dask")

    @cached_property
    def own(self) -> dict[str, Any]:
        """What `dask.array` lacks."""
        return {"complex": partial(sys.modules["dask.array"].elemwise, complex_kernel)}

    def dtype(self, array: Array) -> DType:
        """Give the dtype, which is NumPy's own."""
        return array.dtype  # type: ignore[no-any-return]

    def native(self, dtype: DType) -> DType:
        """Give the dtype itself."""
        return dtype

    def astype(self, x: Array, dtype: DType) -> Array:
        """Convert an array."""
        return x.astype(dtype)

    def check(self, array: Array) -> None:
        """Refuse an array of masked chunks."""
        check_unmasked(array._meta, "dask.array.ma.filled(x, value)")

    def sizes(self, array: Array) -> tuple[Any, ...]:
        """Give the shape, in which sizes that Dask has not computed answer no question."""
        return tuple([UnknownSize() if isnan(n) else n for n in array.shape])

    def ready(self, array: Array) -> Array:
        """Put an axis of size one in one chunk, which Dask would repeat for each of several."""
        cut = [i for i, c in enumerate(array.chunks) if len(c) > 1 and sum(c) == 1]
        return array.rechunk(dict.fromkeys(cut, -1)) if cut else array

    def copy(self, array: Array) -> Array:
        """Give the array itself, into which no tensor writes."""
        return array

    def get(self, array: Array, key: tuple[Any, ...]) -> Array:
        """Choose a part; Dask takes one array of indices, along one axis."""
        if any(k.ndim > 1 for k in key if hasattr(k, "ndim")):
            raise NotImplementedError
        return array[key]

    def put(self, array: Array, key: tuple[Any, ...], value: Array, *, add: bool = False) -> Array:
        """Leave it to a task: what an index out of range chooses would be lost in silence."""
        raise NotImplementedError

    def number(self, value: Any, dtype: DType, like: Array) -> Array:
        """Make an array without axes."""
        return self.from_numpy(np.asarray(value, dtype), like)

    def full(self, shape: Any, value: Any, dtype: DType, like: Array) -> Array:
        """Make an array of one number."""
        return sys.modules["dask.array"].full(tuple(shape), value, dtype=dtype)

    def defer(self, fn: Any, args: list[Any], wanted: Any) -> Any:
        """Make recipes of one task: a function of the whole arrays, whose results are known."""
        dask, da = sys.modules["dask"], sys.modules["dask.array"]
        whole = dask.delayed(fn, pure=True)(*[map_leaves(in_one_task, arg) for arg in args])
        if wanted.__class__ not in {tuple, list}:
            return da.from_delayed(whole, tuple(wanted.shape), wanted.dtype)
        return [da.from_delayed(whole[i], tuple(w.shape), w.dtype) for i, w in enumerate(wanted)]

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """Compute the array; the result is read-only, since nobody would see a write to it."""
        found = np.asarray(array.compute())
        found.flags.writeable = False
        return found

    def from_numpy(self, array: np.ndarray[Any, Any], like: Array) -> Array:
        """Make a recipe of one chunk."""
        return sys.modules["dask.array"].from_array(np.array(array), chunks=-1)


def in_one_task(value: Any) -> Any:
    """Give the one task of a whole array: Dask's own would copy all tasks before it.

    Copies under new names double with each step, where two arguments come of one array.
    """
    if not isinstance(value, sys.modules["dask.array"].Array):
        return value
    if value.npartitions > 1:
        if any(isnan(n) for n in value.shape):
            return value
        value = value.rechunk(-1)
    return value.to_delayed(optimize_graph=False).item()
