"""Indexing with tensors of integers, and what is written with it.

`index` and its relatives take one entry per axis: a tensor of integers, or
None for an axis that is taken whole. The tensors are broadcast together; their
axes stand where the first one stood, or in front if a None lies between two
(NumPy's rule). Masks become integers before, in `ops/subscripts.py`, because
the number of elements that they choose depends on data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from polyop.errors import OutOfRangeError
from polyop.ops.define import define
from polyop.ops.door import takes
from polyop.ops.joining import in_order
from polyop.ops.pointwise import warn_lost
from polyop.ops.shapes import broadcast, normal_axis
from polyop.ops.view_inverses import in_front, refuse_repeated
from polyop.ops.view_metas import refuse
from polyop.ops.views import broadcast_to, front, permute_dims, reshape
from polyop.schema.tags import Tag
from polyop.tensor.meta import Meta, Shape, Size

Fn = Callable[..., Any]
Array = Any
Indices = Sequence[Any]
WHOLE = slice(None)


def spelled(indices: Indices) -> tuple[Any, ...]:
    """Give the index that NumPy takes."""
    return tuple(WHOLE if i is None else i for i in indices)


def layout(indices: Indices) -> tuple[int, int]:
    """Give where the tensors' axes stand in the result, and how many axes are indexed."""
    given = [i for i, index in enumerate(indices) if index is not None]
    if not given:
        refuse("index", "at least one index is a tensor", argument="indices", seen=list(indices))
    together = given[-1] - given[0] + 1 == len(given)
    return (given[0] if together else 0), len(given)


def _masked(indices: Indices) -> bool:
    return any(i is not None and i.dtype.kind == "b" for i in indices)


def _refuse_masks(op: str, indices: Indices) -> None:
    """Refuse masks where only integers have a rule: how much a mask chooses, data say."""
    if _masked(indices):
        refuse(
            op,
            f"{op} takes tensors of integers here, not masks",
            argument="indices",
            seen=[None if i is None else f"{i.dtype}{list(i.shape)}" for i in indices],
            fix="write x[mask], which finds the integers first, or use where(mask, ...)",
        )


def _out_of_range(op: str, shape: Shape, indices: Indices, error: Exception) -> NoReturn:
    raise OutOfRangeError(
        f"the indices do not fit the shape {tuple(shape)}: {error}",
        op=f"core::{op}",
        argument="indices",
        seen=[None if i is None else f"{i.dtype}{list(i.shape)}" for i in indices],
    )


def _names_one_axis(indices: Indices) -> bool:
    """Tell whether places along a single axis are chosen, the last that is named."""
    last = indices[-1] if indices else None
    if last is None or last.dtype.kind == "b" or not last.ndim:
        return False
    return all(i is None for i in indices[:-1])


def _index(x: Array, indices: Indices) -> Any:
    try:
        if len(indices) == 1 and indices[0] is not None and indices[0].dtype.kind != "b":
            if not x.ndim:
                raise IndexError("1 index for 0 axes")
            return x.take(indices[0], 0) if indices[0].ndim else x[indices[0]].copy()
        if _names_one_axis(indices) and len(indices) <= x.ndim and x.size:
            return x.take(indices[-1], len(indices) - 1)
        return in_order(np.asarray(x[spelled(indices)]))
    except IndexError as error:
        _out_of_range("index", x.shape, indices, error)


def index_shape(shape: Shape, indices: Indices) -> Shape:
    """Give the shape of what is chosen.

    Raises:
        ArgumentError: too many indices, or they do not broadcast.
    """
    if len(indices) > len(shape):
        refuse("index", f"{len(indices)} indices for {len(shape)} axes", argument="indices")
    place, _ = layout(indices)
    chosen = broadcast("index", *[i.shape for i in indices if i is not None])
    padded = [*indices, *[None] * (len(shape) - len(indices))]
    rest = [n for n, i in zip(shape, padded, strict=True) if i is None]
    return (*rest[:place], *chosen, *rest[place:])


def _index_meta(x: Meta, indices: Indices) -> Meta:
    _refuse_masks("index", indices)
    return x.space.meta(index_shape(x.shape, indices), x.dtype, None, x.device)


# -- writing ------------------------------------------------------------------


def _index_put(x: Array, indices: Indices, values: Array, accumulate: bool = False) -> Array:
    return _index_put_(x.copy(), indices, values, accumulate)


def _index_put_(x: Array, indices: Indices, values: Array, accumulate: bool) -> Array:
    if x.dtype.kind == "V":
        warn_lost("core::index_put_", values.dtype, x.dtype)
    try:
        if accumulate:
            # Converted first, as where it replaces: NumPy would cut each sum anew.
            np.add.at(x, spelled(indices), values.astype(x.dtype, copy=False))
        else:
            x[spelled(indices)] = values
    except (IndexError, ValueError, TypeError) as error:
        if not x.flags.writeable:
            refuse_repeated("index_put_", x)
        _out_of_range("index_put", x.shape, indices, error)
    return x


def _index_put_meta(x: Meta, indices: Indices, values: Meta, accumulate: bool) -> Meta:
    if _masked(indices):
        return x.space.meta(x.shape, x.dtype, None, x.device)
    wanted = index_shape(x.shape, indices)
    if broadcast("index_put", wanted, values.shape) != wanted:
        refuse("index_put", f"values of shape {values.shape} do not fit {wanted}")
    return x.space.meta(x.shape, x.dtype, None, x.device)


def _index_grad(part: Array, shape: Sequence[int], indices: Indices) -> Array:
    return _index_put_(np.zeros(shape, part.dtype), indices, part, True)


def _index_grad_meta(part: Meta, shape: Sequence[Size], indices: Indices) -> Meta:
    return part.space.meta(tuple(shape), part.dtype, None, part.device)


# -- which writes stay ---------------------------------------------------------


def _last_put(x: Array, indices: Indices) -> Array:
    """Tell of each value that is put at indices whether no later one is put at its place."""
    if _masked(indices):
        return _last_of_numbers(x.shape, spelled(indices))
    given = [i for i in indices if i is not None]
    kept = _last_of_numbers(
        [n for n, i in zip(x.shape, indices, strict=False) if i is not None], tuple(given)
    )
    shape = index_shape(x.shape, indices)
    behind = x.ndim - len(given) - layout(indices)[0]
    whole: Any = shape
    return np.broadcast_to(kept.reshape((*kept.shape, *[1] * behind)), whole).copy()


def _last_of_numbers(shape: Sequence[int], places: Any) -> Array:
    """Put the numbers of the values, and see which are there in the end."""
    numbers = np.empty(shape, np.intp)  # only the places that are written are read
    chosen = numbers[places]
    order = np.arange(chosen.size).reshape(chosen.shape)
    numbers[places] = order
    return np.asarray(numbers[places] == order)


def _last_put_meta(x: Meta, indices: Indices) -> Meta:
    _refuse_masks("index_put", indices)
    return x.space.meta(index_shape(x.shape, indices), np.dtype(np.bool_), None, x.device)


# -- batching -----------------------------------------------------------------


def batched_indices(info: Any, dims: Sequence[Any], indices: Indices) -> tuple[list[Any], int]:
    """Give indices with the batch in front and equal rank, and that rank without the batch."""
    ranks = [i.ndim - (d is not None) for d, i in zip(dims, indices, strict=True) if i is not None]
    rank = max(ranks)
    full = []
    for d, i in zip(dims, indices, strict=True):
        if i is None or d is None:
            full.append(i)
            continue
        lined = front(i, d)
        ones = [1] * (rank + 1 - lined.ndim)
        full.append(reshape(lined, [lined.shape[0], *ones, *lined.shape[1:]]))
    return full, rank


def _count(info: Any, indices: Indices, rank: int) -> Any:
    """Give the batch's own index: each sample's number, along the batch's axis."""
    some = next(i for i in indices if i is not None)
    return batch_numbers(some, info.batch_size, rank)


def _index_batched(info: Any, in_dims: Any, x: Any, indices: Indices) -> Any:
    _refuse_masks("index", indices)
    x_dim, dims = in_dims
    place, _ = layout(indices)
    dims = [None] * len(indices) if dims is None else dims
    full, rank = batched_indices(info, dims, indices)
    if all(d is None for d in dims):
        chosen = index(front(x, x_dim), [None, *full])
        return chosen, (0 if layout([None, *full])[0] else rank)
    if x_dim is None:
        return index(x, full), place
    whole = index(front(x, x_dim), [_count(info, full, rank), *full])
    return _moved(whole, 1, rank, 1 + place), 0


def _moved(x: Any, start: int, count: int, target: int) -> Any:
    """Move `count` adjacent axes from `start` to `target`."""
    if start == target or not count:
        return x
    rest = [i for i in range(x.ndim) if not start <= i < start + count]
    rest[target:target] = range(start, start + count)
    return permute_dims(x, rest)


def _last_put_batched(info: Any, in_dims: Any, x: Any, indices: Indices) -> Any:
    x = in_front(info, in_dims[0], x)
    place, _ = layout(indices)
    full, rank = batched_indices(info, in_dims[1] or [None] * len(indices), indices)
    return _moved(last_put(x, [_count(info, full, rank), *full]), 1, rank, 1 + place), 0


def _put_batched(put: Callable[[], Fn]) -> Fn:
    def rule(info: Any, in_dims: Any, x: Any, indices: Indices, values: Any, add: bool) -> Any:  # noqa: PLR0917
        _refuse_masks("index_put", indices)
        x = in_front(info, in_dims[0], x)
        dims = in_dims[1] or [None] * len(indices)
        logical = [_Logical(d, i) for d, i in zip(dims, indices, strict=True)]
        shapes = [None if i is None else s for i, s in zip(indices, logical, strict=True)]
        wanted = index_shape(x.shape[1:], shapes)
        full, rank = batched_indices(info, dims, indices)
        full = [_count(info, full, rank), *full]
        values = _spread(in_front(info, in_dims[2], values), wanted)
        place, _ = layout(indices)
        # The batch's own index stands first: with it, the tensors' axes come to the front.
        return put()(x, full, _moved(values, 1 + place, rank, 1), add), 0

    return rule


def _spread(values: Any, shape: Sequence[Any]) -> Any:
    """Broadcast values behind their batch."""
    ones = [1] * (len(shape) + 1 - values.ndim)
    values = reshape(values, [values.shape[0], *ones, *values.shape[1:]])
    return broadcast_to(values, [values.shape[0], *shape])


class _Logical:
    """The shape of an index without its batch."""

    def __init__(self, axis: int | None, index: Any) -> None:
        shape = tuple(index.shape) if index is not None else ()
        self.shape = shape if axis is None else shape[:axis] + shape[axis + 1 :]


def _index_grad_batched(info: Any, in_dims: Any, part: Any, shape: Any, indices: Indices) -> Any:
    zeros = zero_of(part, [info.batch_size, *shape])
    dims = (0, in_dims[2], in_dims[0])
    return _put_batched(lambda: index_put)(info, dims, zeros, indices, part, True)


def _batch_numbers(some: Array, count: int, rank: int) -> Array:
    return np.arange(count).reshape(count, *[1] * rank)


#: 0, 1, ... along the first of several axes.
batch_numbers = define(
    "batch_numbers(Tensor some, SymInt count, int rank) -> Tensor",
    _batch_numbers,
    fake=lambda some, count, rank: some.space.meta(
        (count, *[1] * rank), np.dtype(np.int64), None, some.device
    ),
    grad={},
)
#: Zeros of a tensor's dtype and of another shape.
zero_of: Fn = define(
    "zero_of(Tensor some, SymInt[] shape) -> Tensor",
    lambda some, shape: np.zeros(shape, some.dtype),
    fake=lambda some, shape: some.space.meta(tuple(shape), some.dtype, None, some.device),
    grad={},
    vmap=lambda info, _, some, shape: (zero_of(some, [info.batch_size, *shape]), 0),
)

index: Fn = define(
    "index(Tensor x, Tensor?[] indices) -> Tensor",
    _index,
    fake=_index_meta,
    grad={"x": "index_grad(g, x.shape, indices)"},
    vmap=_index_batched,
)
index_grad: Fn = define(
    "index_grad(Tensor part, SymInt[] shape, Tensor?[] indices) -> Tensor",
    _index_grad,
    fake=_index_grad_meta,
    grad={"part": "index(g, indices)"},
    vmap=_index_grad_batched,
)
last_put: Fn = define(
    "last_put(Tensor x, Tensor?[] indices) -> Tensor",
    _last_put,
    fake=_last_put_meta,
    grad={},
    vmap=_last_put_batched,
)
#: A value that a later one has overwritten has no gradient.
index_put: Fn = define(
    "index_put(Tensor x, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor",
    _index_put,
    fake=_index_put_meta,
    grad={
        "x": "g if accumulate else index_put(g, indices, zero_like(index(g, indices)))",
        "values": "sum_to(index(g, indices) if accumulate else "
        "where(last_put(g, indices), index(g, indices), 0), values.shape)",
    },
    vmap=_put_batched(lambda: index_put),
)
index_put_: Fn = define(
    "index_put_(Tensor(a!) x, Tensor?[] indices, Tensor values, bool accumulate=False)"
    " -> Tensor(a!)",
    _index_put_,
    fake=_index_put_meta,
    vmap=_put_batched(lambda: index_put_),
    tags=(Tag.inplace,),
)


# -- compositions -------------------------------------------------------------


@takes("Tensor x, Tensor indices, int? axis")
def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    """Take the elements at some places of an axis; it may be left out for one axis."""
    ndim = x.ndim
    if axis is None:
        if ndim != 1:
            refuse("take", "a tensor of several axes needs to know which", argument="axis")
        axis = 0
    if not ndim:
        normal_axis("take", axis, 0)
        x, ndim = reshape(x, [1]), 1
    return index(x, [*[None] * normal_axis("take", axis, ndim), indices])


@takes("Tensor x, int axis, Tensor index_")
def index_select(x: Any, axis: int, index_: Any) -> Any:
    """Take the elements at some places of an axis; a tensor without axes has one place."""
    if not x.ndim:
        normal_axis("take", axis, 0)
        return reshape(index(reshape(x, [1]), [index_]), [])
    return index(x, [*[None] * normal_axis("take", axis, x.ndim), index_])


def index_add(x: Any, axis: int, index_: Any, source: Any) -> Any:
    """Add a tensor to the places of an axis; a tensor without axes has one place."""
    if not x.ndim:
        return _at_one(index_add, x, axis, index_, source)
    return index_put(x, [*[None] * normal_axis("index_add", axis, x.ndim), index_], source, True)


def _at_one(write: Fn, x: Any, axis: int, index_: Any, source: Any) -> Any:
    normal_axis("index_put", axis, 0)
    places, values = reshape(index_, [-1]), reshape(source, [-1])
    return reshape(write(reshape(x, [1]), 0, places, values), [])


def index_copy(x: Any, axis: int, index_: Any, source: Any) -> Any:
    """Put a tensor into the places of an axis; a tensor without axes has one place."""
    if not x.ndim:
        return _at_one(index_copy, x, axis, index_, source)
    return index_put(x, [*[None] * normal_axis("index_copy", axis, x.ndim), index_], source)
