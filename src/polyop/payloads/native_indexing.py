"""Native kernels that choose and write by index, and that sort.

Integers index as int64 (PyTorch takes those of 8 bits for masks). Where a library does not say
that an index is out of range, it is looked at, in recipes when they are computed, or what is
chosen there is NaN under a trace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from polyop.errors import OutOfRangeError
from polyop.ops.indexing import layout
from polyop.ops.shapes import normal_axis
from polyop.payloads.library import Array
from polyop.payloads.native import Call, Unsupported, native, sizes_known

INDEX = np.dtype(np.int64)
WHOLE = slice(None)


def indices_of(call: Call, indices: Sequence[Any], sizes: Sequence[Any]) -> list[Any]:
    """Give indices as the library takes them, checked where the library does not."""
    pairs = zip(indices, sizes, strict=False)
    return [None if i is None else index_of(call, i, n) for i, n in pairs]


def index_of(call: Call, index: Array, size: Any) -> Array:
    """Give one index of integers."""
    library = call.library
    if library.lazy:
        index = call.to(index, INDEX)
        return index.map_blocks(within, size, dtype=INDEX, meta=index._meta)
    if library.clamps and library.is_concrete(index) and 0 not in index.shape:
        places = library.to_numpy(index)
        if places.max() >= size or places.min() < -size:
            raise Unsupported
    return call.to(index, INDEX)


def within(index: Array, size: Any) -> Array:
    """Give a block of indices.

    Raises:
        OutOfRangeError: one is out of range.
    """
    places = np.asarray(index)
    outside = places[(places >= size) | (places < -size)]
    if outside.size:
        raise OutOfRangeError(
            f"index {outside[0]} is out of range for an axis of size {size}",
            op="core::index",
            argument="indices",
            declared=f"{-size} to {size - 1}",
            seen=int(outside[0]),
        )
    return index


@native("index")
def index(call: Call, x: Array, indices: Sequence[Any]) -> Array:
    """Choose by integers."""
    found = indices_of(call, indices, x.shape)
    return call.library.get(x, tuple([WHOLE if i is None else i for i in found]))


def _put(call: Call, x: Array, indices: Sequence[Any], values: Array, add: bool) -> Array:
    """Write by integers, with the axes that are indexed brought to the front.

    The values have the dtype of `x`.
    """
    place, _ = layout(indices)
    found = [i for i in indices_of(call, indices, x.shape) if i is not None]
    at = [i for i, index in enumerate(indices) if index is not None]
    rest = [i for i in range(len(x.shape)) if i not in at]
    chosen = np.broadcast_shapes(*[tuple(i.shape) for i in found])
    sizes = [x.shape[i] for i in rest]
    values = call.broadcast(values, (*sizes[:place], *chosen, *sizes[place:]))
    r = len(chosen)
    order = [*range(place, place + r), *range(place), *range(place + r, r + len(rest))]
    front = _ordered(call, x, [*at, *rest])
    done = call.library.put(front, tuple(found), _ordered(call, values, order), add=add)
    return _ordered(call, done, [int(i) for i in np.argsort([*at, *rest])])


def _ordered(call: Call, x: Array, order: Sequence[int]) -> Array:
    return call.xp.permute_dims(x, tuple(order)) if list(order) != sorted(order) else x


@native("index_put")
def index_put(call: Call, x: Array, indices: Any, values: Array, add: bool) -> Array:
    """Replace, or add to, what integers choose."""
    return _put(call, x, indices, call.to(values, call.dtype), add)


@native("last_put")
def last_put(call: Call, x: Array, indices: Any) -> Array:
    """Put the numbers of the values, and see which are there in the end."""
    order = _numbers(call)
    numbers = _put(call, call.full(x.shape, 0, INDEX), indices, order, False)
    return call.xp.equal(index(call, numbers, indices), order)


def _numbers(call: Call) -> Array:
    shape = call.shape
    return call.library.from_numpy(np.arange(math.prod(shape)).reshape(shape), call.like)


@native("index_grad")
def index_grad(call: Call, part: Array, shape: Any, indices: Any) -> Array:
    """Add up in zeros what was chosen."""
    return _put(call, call.full(shape, 0), indices, call.to(part, call.dtype), True)


# -- along an axis ---------------------------------------------------------------------


@native("take_along_axis")
def take_along_axis(call: Call, x: Array, indices: Array, axis: int) -> Array:
    """Choose along an axis."""
    at = normal_axis("take_along_axis", axis, len(x.shape))
    found = index_of(call, indices, x.shape[at])
    size, zero = call.number(int(x.shape[at]), INDEX), call.number(0, INDEX)
    # What is out of range stays so: not each library takes negative indices.
    found = call.xp.where((found < zero) & (found >= -size), found + size, found)
    own = call.library.own.get("take_along_axis")
    if own is None:
        return call.xp.take_along_axis(x, found, axis=at)
    whole = [x.shape[i] if i == at else n for i, n in enumerate(call.shape)]
    return own(call.broadcast(x, whole), call.broadcast(found), axis=at)


def _places(call: Call, found: Array, shape: Sequence[int], whole: Any, axis: int) -> Any:
    places = []
    for i, n in enumerate(shape):
        if i == axis:
            places.append(found)
            continue
        grid = np.arange(n) if whole[i] != 1 else np.zeros(n, INDEX)
        grid = grid.reshape([-1 if j == i else 1 for j in range(len(shape))])
        places.append(call.library.from_numpy(grid, call.like))
    return tuple(places)


@native("scatter_along_axis")
def scatter_along_axis(call: Call, x: Array, indices: Array, shape: Any, axis: int) -> Array:
    """Add up along an axis, in zeros, what was chosen."""
    at = normal_axis("scatter_along_axis", axis, len(shape))
    found = index_of(call, indices, shape[at])
    key = _places(call, found, tuple(x.shape), shape, at)
    return call.library.put(call.full(shape, 0), key, x, add=True)


@native("put_along_axis")
def put_along_axis(call: Call, x: Array, indices: Array, values: Array, axis: int) -> Array:
    """Replace along an axis."""
    return _put_along(call, x, indices, call.to(values, call.dtype), axis)


def _put_along(call: Call, x: Array, indices: Array, values: Array, axis: int) -> Array:
    at = normal_axis("put_along_axis", axis, len(x.shape))
    found = index_of(call, indices, x.shape[at])
    shape = [indices.shape[i] if i == at else n for i, n in enumerate(x.shape)]
    key = _places(call, call.broadcast(found, shape), shape, shape, at)
    return call.library.put(x, key, call.broadcast(values, shape))


@native("last_put_along_axis")
def last_put_along_axis(call: Call, x: Array, indices: Array, axis: int) -> Array:
    """Put the numbers of the values, and see which are there in the end."""
    order = _numbers(call)
    numbers = _put_along(call, call.full(x.shape, 0, INDEX), indices, order, axis)
    return call.xp.equal(take_along_axis(call, numbers, indices, axis), order)


# -- in order --------------------------------------------------------------------------


@native("sort")
def sort(call: Call, x: Array, axis: int, descending: bool, stable: bool) -> Array:
    """Sort along an axis; reversed twice where it descends, for zeros of both signs tie."""
    xp = call.xp
    if not descending:
        return xp.sort(x, axis=axis, stable=True)
    return xp.flip(xp.sort(xp.flip(x, axis=(axis,)), axis=axis, stable=True), axis=(axis,))


@native("argsort")
def argsort(call: Call, x: Array, axis: int, descending: bool, stable: bool) -> Array:
    """Give the order of the elements; those that tie keep theirs."""
    xp = call.xp
    if not descending:
        return xp.argsort(x, axis=axis, stable=True)
    back = xp.argsort(xp.flip(x, axis=(axis,)), axis=axis, stable=True)
    return call.number(int(x.shape[axis]) - 1, INDEX) - call.to(xp.flip(back, axis=(axis,)), INDEX)


@native("topk")
def topk(call: Call, x: Array, k: Any, axis: int, largest: bool, sorted_: bool) -> Any:  # noqa: PLR0917
    """Give the greatest or least, and where they are."""
    order = argsort(call, x, axis, largest, True)
    at = normal_axis("topk", axis, len(x.shape))
    indices = call.to(order[(*(WHOLE,) * at, slice(None, k), ...)], INDEX)
    return call.xp.take_along_axis(x, indices, axis=at), call.library.copy(indices)


@native("searchsorted")
def searchsorted(call: Call, row: Array, x: Array, side: str, sorter: Any) -> Array:
    """Find where elements belong in a sorted vector."""
    if sorter is not None or not sizes_known(row):
        raise Unsupported
    if call.library.lazy and (not x.shape or 0 in x.shape):
        raise Unsupported  # of blocks without axes, or without elements, Dask makes others
    dtype = call.common(row, x)
    search = call.library.own.get("searchsorted") or call.xp.searchsorted
    return search(call.to(row, dtype), call.to(x, dtype), side=side)


@native("clip_part")
def clip_part(call: Call, x: Array, least: Any, most: Any, part: str) -> Array:
    """Tell which elements `clip` keeps, or moves."""

    def less(a: Any, b: Any, *, equal: bool = False) -> Array:
        dtype = call.common(a, b)
        a, b = call.to(a, dtype), call.to(b, dtype)
        return a <= b if equal else a < b

    if part == "above":
        found = less(most, x)
        return found if least is None else found | less(most, least)
    if part == "below":
        found = less(x, least)
        if most is None:
            return found
        one = less(most, least, equal=True) & less(least, most, equal=True)
        return found & less(least, most, equal=True) | less(x, least, equal=True) & one
    found = call.full(x.shape, True) if least is None else less(least, x, equal=True)
    found = found if most is None else found & less(x, most, equal=True)
    apart = least is None or most is None or less(least, most) | less(most, least)
    return found if apart is True else found & apart
