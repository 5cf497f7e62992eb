"""Sorting, and looking elements up: along one axis, or by their values.

A sorted result comes with the order that made it; its gradient goes back
through the same order, so `scatter_along_axis`, which adds elements at their
indices, serves sorting, `topk` and `take_along_axis` alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.errors import ArgumentError
from polyop.ops.axes import (
    along_vmap,
    call,
    on_one,
    past,
    refuse,
    stacked,
    together_vmap,
    with_axis,
    without_axis,
)
from polyop.ops.define import ON_TENSORS, define
from polyop.ops.shapes import broadcast, normal_axis
from polyop.ops.signatures import announce
from polyop.tensor.meta import Meta, Size

Fn = Callable[..., Any]
Array = Any
INDEX = np.dtype(np.int64)


# -- by index, along an axis --------------------------------------------------


def take_along_axis_kernel(x: Array, indices: Array, axis: int = -1) -> Array:
    """Take elements of `x` at indices along one axis."""
    if not x.ndim and not indices.ndim:
        return on_one("take_along_axis", _take_one, x, axis, indices)
    try:
        return np.ascontiguousarray(np.take_along_axis(x, indices, axis))
    except (ValueError, IndexError) as error:
        refuse("take_along_axis", x, axis, error)


def _take_one(x: Array, axis: int, indices: Array) -> Array:
    return take_along_axis_kernel(x, indices.reshape(1), axis)


def _places(indices: Array, shape: Sequence[int], whole: Sequence[int], axis: int) -> Any:
    """Spell indices along one axis for NumPy; the others are those of `shape`."""
    grid = np.ogrid[tuple([slice(n) for n in shape])]
    places = [
        indices if i == axis else where if whole[i] != 1 else where * 0
        for i, where in enumerate(grid)
    ]
    return tuple(places)


def scatter_along_axis_kernel(
    x: Array, indices: Array, shape: Sequence[int], axis: int = -1
) -> Array:
    """Add elements of `x` into zeros, at indices along one axis."""
    result = np.zeros(shape, x.dtype)
    at = normal_axis("scatter_along_axis", axis, result.ndim)
    if not result.ndim:
        return x.reshape(())
    np.add.at(result, _places(indices, x.shape, result.shape, at), x)
    return result


def put_along_axis_kernel(x: Array, indices: Array, values: Array, axis: int = -1) -> Array:
    """Give `x` with values put at indices along one axis."""
    if not x.ndim and not indices.ndim:
        return on_one("put_along_axis", _put_one, x, axis, indices, values)
    result = np.array(x, order="C")
    try:
        np.put_along_axis(result, indices, values, axis)
    except (ValueError, IndexError) as error:
        refuse("put_along_axis", x, axis, error)
    return result


def _put_one(x: Array, axis: int, indices: Array, values: Array) -> Array:
    return put_along_axis_kernel(x, indices.reshape(1), values, axis)


def last_put_along_axis_kernel(x: Array, indices: Array, axis: int = -1) -> Array:
    """Tell of each value that is put along one axis whether no later one is put at its place."""
    normal_axis("last_put_along_axis", axis, x.ndim)
    if not x.ndim:
        return np.ones((), np.bool_)
    numbers = np.empty(x.shape, np.intp)  # only the places that are written are read
    chosen = np.take_along_axis(numbers, indices, axis)
    order = np.arange(chosen.size).reshape(chosen.shape)
    np.put_along_axis(numbers, indices, order, axis)
    return np.asarray(np.take_along_axis(numbers, indices, axis) == order)


def _same_ndim(name: str, x: Meta, indices: Meta) -> None:
    if x.ndim != indices.ndim:
        raise ArgumentError(
            f"core::{name} takes indices with as many axes as the elements",
            op=f"core::{name}",
            argument="indices",
            declared=f"{x.ndim} axes",
            seen=f"{indices.ndim} axes",
        )


def take_along_axis_fake(x: Meta, indices: Meta, axis: int) -> Meta:
    """Describe the elements taken."""
    _same_ndim("take_along_axis", x, indices)
    at = normal_axis("take_along_axis", axis, x.ndim)
    if not x.ndim:
        return x
    one = (1,)
    rest = x.shape[:at] + one + x.shape[at + 1 :]
    return x.but(shape=broadcast("take_along_axis", rest, indices.shape), strides=None)


def last_put_along_axis_fake(x: Meta, indices: Meta, axis: int) -> Meta:
    """Describe the truth values of what is put."""
    return take_along_axis_fake(x, indices, axis).but(dtype=np.dtype(np.bool_))


def scatter_along_axis_fake(x: Meta, indices: Meta, shape: Sequence[Size], axis: int) -> Meta:
    """Describe the zeros with elements added."""
    return x.but(shape=tuple(shape), strides=None)


def put_along_axis_fake(x: Meta, indices: Meta, values: Meta, axis: int) -> Meta:
    """Describe the array with values put."""
    _same_ndim("put_along_axis", x, indices)
    normal_axis("put_along_axis", axis, x.ndim)
    return x.but(strides=None)


def scatter_along_axis_vmap(
    info: Any, in_dims: Sequence[Any], x: Any, indices: Any, *statics: Any
) -> Any:
    """Add into zeros for each element of a batch."""
    shape, axis = statics
    at = normal_axis("scatter_along_axis", axis, len(shape))
    n = info.batch_size
    x, indices = (stacked(v, d, n) for v, d in zip((x, indices), in_dims, strict=False))
    if not shape:
        return x, 0
    return call("scatter_along_axis", x, indices, [n, *shape], at + 1), 0


take_along_axis = define(
    "take_along_axis(Tensor x, Tensor indices, *, int axis=-1) -> Tensor",
    take_along_axis_kernel,
    fake=take_along_axis_fake,
    grad={"x": "scatter_along_axis(g, indices, x.shape, axis)"},
    vmap=together_vmap("take_along_axis"),
)
scatter_along_axis = define(
    "scatter_along_axis(Tensor x, Tensor indices, SymInt[] shape, int axis=-1) -> Tensor",
    scatter_along_axis_kernel,
    fake=scatter_along_axis_fake,
    grad={"x": "sum_to(take_along_axis(g, indices, axis=axis), x.shape)"},
    vmap=scatter_along_axis_vmap,
)
last_put_along_axis = define(
    "last_put_along_axis(Tensor x, Tensor indices, *, int axis=-1) -> Tensor",
    last_put_along_axis_kernel,
    fake=last_put_along_axis_fake,
    grad={},
    vmap=together_vmap("last_put_along_axis"),
)
put_along_axis = define(
    "put_along_axis(Tensor x, Tensor indices, Tensor values, *, int axis=-1) -> Tensor",
    put_along_axis_kernel,
    fake=put_along_axis_fake,
    grad={
        "x": "put_along_axis(g, indices, zero_of(g, values.shape), axis=axis)",
        "values": "sum_to(where(last_put_along_axis(g, indices, axis=axis), "
        "take_along_axis(g, indices, axis=axis), 0), values.shape)",
    },
    vmap=together_vmap("put_along_axis"),
)


# -- sorting ------------------------------------------------------------------


def sort_kernel(x: Array, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Sort along an axis."""
    normal_axis("sort", axis, x.ndim)
    if not x.ndim:
        return x.copy()
    # Reversed twice, so that those who tie keep their order: zeros of both signs do.
    result = np.array(np.flip(x, axis) if descending else x, order="C")
    try:
        result.sort(axis, "stable" if stable else None)
    except ValueError as error:
        refuse("sort", x, axis, error)
    return np.flip(result, axis).copy() if descending else result


def argsort_kernel(
    x: Array, axis: int = -1, descending: bool = False, stable: bool = True
) -> Array:
    """Give the indices that sort along an axis; ties keep their order."""
    normal_axis("argsort", axis, x.ndim)
    if not x.ndim:
        return on_one("argsort", argsort_kernel, x, axis, descending)
    try:
        if not descending:
            return np.ascontiguousarray(x.argsort(axis, "stable"))
        # Reversed twice, so that those who tie keep their order here too.
        order = np.flip(np.flip(x, axis).argsort(axis, "stable"), axis)
        return np.subtract(x.shape[axis] - 1, order, order="C")
    except ValueError as error:
        refuse("argsort", x, axis, error)


def _sort_fake(name: str, dtype: Any = None) -> Fn:
    def fake(x: Meta, axis: int, descending: bool, stable: bool) -> Meta:
        normal_axis(name, axis, x.ndim)
        return x.but(strides=None, dtype=dtype or x.dtype)

    return fake


_SORT = "*, int axis=-1, bool descending=False, bool stable=True"
argsort = define(
    f"argsort(Tensor x, {_SORT}) -> Tensor",
    argsort_kernel,
    fake=_sort_fake("argsort", INDEX),
    vmap=along_vmap("argsort"),
)
sort = define(
    f"sort(Tensor x, {_SORT}) -> Tensor",
    sort_kernel,
    fake=_sort_fake("sort"),
    grad={
        "x": "scatter_along_axis("
        "g, argsort(x, axis=axis, descending=descending, stable=stable), x.shape, axis)"
    },
    vmap=along_vmap("sort"),
)


def topk_kernel(
    x: Array, k: int, axis: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Array, Array]:
    """Give the `k` greatest (or least) elements along an axis, in order, and their indices."""
    at = normal_axis("topk", axis, x.ndim)
    if not x.ndim:
        if k != 1:
            raise _too_many(k, 1)
        return x.copy(), np.zeros((), INDEX)
    order = argsort_kernel(x, axis, largest)
    if not 0 <= k <= x.shape[axis]:
        raise _too_many(k, x.shape[axis])
    indices = order[(slice(None),) * at + (slice(k),)].copy()
    return take_along_axis_kernel(x, indices, axis), indices


def _too_many(k: Any, size: Any) -> ArgumentError:
    return ArgumentError(
        f"there are no {k} elements to choose",
        op="core::topk",
        argument="k",
        declared=f"0 to {size}",
        seen=k,
    )


def topk_fake(x: Meta, k: Size, axis: int, largest: bool, sorted: bool) -> tuple[Meta, Meta]:
    """Describe the elements and their indices."""
    at = normal_axis("topk", axis, x.ndim)
    if not x.ndim:
        if isinstance(k, int) and k != 1:
            raise _too_many(k, 1)
        return x, x.but(dtype=INDEX)
    size = x.shape[at]
    if isinstance(k, int) and (k < 0 or (isinstance(size, int) and k > size)):
        raise _too_many(k, size)
    values = x.but(shape=(*x.shape[:at], k, *x.shape[at + 1 :]), strides=None)
    return values, values.but(dtype=INDEX)


def topk_vmap(info: Any, in_dims: Sequence[Any], x: Any, k: Size, axis: int, *rest: Any) -> Any:
    """Choose in each element of a batch."""
    dim = in_dims[0]
    if x.ndim == 1:
        normal_axis("topk", axis, 0)
        both = call("topk", with_axis(x), k, 1, *rest)
        return tuple(map(without_axis, both)), (0, 0)
    at = past(normal_axis("topk", axis, x.ndim - 1), dim)
    return call("topk", x, k, at, *rest), (dim, dim)


topk = define(
    "topk(Tensor x, SymInt k, *, int axis=-1, bool largest=True, bool sorted=True)"
    " -> (Tensor values, Tensor indices)",
    topk_kernel,
    fake=topk_fake,
    grad={"x": "scatter_along_axis(g0, r1, x.shape, axis)"},
    vmap=topk_vmap,
)


def searchsorted_kernel(
    sorted: Array, x: Array, side: str = "left", sorter: Array | None = None
) -> Array:
    """Give where each element of `x` belongs in a sorted vector."""
    if side not in {"left", "right"} or sorted.ndim != 1:
        raise _unsearchable(sorted.shape, side)
    try:
        return np.asarray(sorted.searchsorted(x, side, sorter))
    except (ValueError, TypeError) as error:
        refuse("searchsorted", sorted, None, error)


def _unsearchable(shape: Any, side: str) -> ArgumentError:
    return ArgumentError(
        "searchsorted takes a sorted vector, or one with a sorter of its size, and "
        '"left" or "right" for equal elements',
        op="core::searchsorted",
        seen=f"shape {shape}, side={side!r}",
    )


def _searchable(shape: Any, ndim: int, side: str, sorter: Any) -> None:
    fits = sorter is None or tuple(sorter.shape) == tuple(shape)
    if side not in {"left", "right"} or len(shape) != ndim or not fits:
        raise _unsearchable(shape, side)


def searchsorted_fake(sorted: Meta, x: Meta, side: str, sorter: Meta | None) -> Meta:
    """Describe the indices."""
    _searchable(sorted.shape, 1, side, sorter)
    return x.but(dtype=INDEX, strides=None)


def searchsorted_vmap(info: Any, in_dims: Sequence[Any], sorted: Any, x: Any, *rest: Any) -> Any:
    """Search a shared vector for a whole batch at once; batches of vectors, one by one."""
    side, sorter = rest
    if in_dims[0] is None and in_dims[3] is None:
        return searchsorted(sorted, x, side=side, sorter=sorter), in_dims[1]
    n = info.batch_size
    if not isinstance(n, int) or not n:
        order = None if sorter is None else stacked(sorter, in_dims[3], n)
        rows, found = stacked(sorted, in_dims[0], n), stacked(x, in_dims[1], n)
        return _searched_rows(rows, found, side, order), 0
    parts = [
        searchsorted(
            _nth(sorted, in_dims[0], i), _nth(x, in_dims[1], i), side=side,
            sorter=_nth(sorter, in_dims[3], i),
        )
        for i in range(n)
    ]  # fmt: skip
    return ON_TENSORS["stack"](parts), 0


def _searched_rows(rows: Any, x: Any, side: str, order: Any) -> Any:
    """Search every row for its own elements, however many rows there are.

    Both are sorted together, those searched for before (or behind) their equals. Where each
    then stands, less how many of those searched for stand before it, is where it belongs.
    """
    _searchable(rows.shape, 2, side, order)
    if order is not None:
        rows = take_along_axis(rows, order, axis=1)
    found = ON_TENSORS["reshape"](x, [x.shape[0], math.prod(x.shape[1:])])
    first = 0 if side == "left" else rows.shape[1]
    both = ON_TENSORS["concat"]([found, rows] if side == "left" else [rows, found], 1)
    places = ON_TENSORS["slice"](_ranks(both), 1, first, first + found.shape[1])
    return ON_TENSORS["reshape"](places - _ranks(found), list(x.shape))


def _ranks(x: Any) -> Any:
    """Tell where the elements of each row stand once it is sorted."""
    return argsort(argsort(x, axis=1), axis=1)


def _nth(x: Any, dim: int | None, i: int) -> Any:
    return x if dim is None else ON_TENSORS["select"](x, dim, i)


searchsorted = define(
    'searchsorted(Tensor sorted, Tensor x, *, str side="left", Tensor? sorter=None) -> Tensor',
    searchsorted_kernel,
    fake=searchsorted_fake,
    vmap=searchsorted_vmap,
)

announce(globals())
