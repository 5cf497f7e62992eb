"""What operators along axes share: axes checked, shapes and strides of results, batches.

A batch costs no movement of data here: the axes of a call are counted anew,
past the batch's own, and the result keeps its batch where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from polyop.devices import DType
from polyop.errors import ArgumentError, OutOfRangeError
from polyop.ops.define import ON_TENSORS
from polyop.ops.shapes import normal_axis, pointwise_strides
from polyop.tensor.meta import Meta, Shape, Size
from polyop.tensor.tensor import is_floating

Fn = Callable[..., Any]
Array = Any
Axes = Sequence[int] | None

#: The bytes of half precision, of which sums and products are kept in single, and rounded once.
HALF = 2
SINGLE = np.dtype(np.float32)


def is_half(dtype: DType) -> bool:
    """Tell whether a dtype is of half precision or less; its own sums would soon stand still."""
    return dtype.itemsize <= HALF and is_floating(dtype)


def rounded(found: Array, dtype: DType) -> Array:
    """Give what was computed in single precision in the half that was given; else as it is."""
    return found.astype(dtype) if is_half(dtype) else found


def normal_axes(op: str, axis: Axes, ndim: int) -> tuple[int, ...]:
    """Give axes as distinct numbers from 0; None means all.

    Raises:
        ArgumentError: one is out of range, or comes twice.
    """
    if axis is None:
        return tuple(range(ndim))
    if not ndim and list(axis) in ([], [0], [-1]):
        return ()  # NumPy and PyTorch give an array without axes one axis to name
    axes = tuple([normal_axis(op, a, ndim) for a in axis])
    if len(set(axes)) < len(axes):
        raise ArgumentError(
            f"the axes {tuple(axis)} do not name distinct axes",
            op=f"core::{op}",
            argument="axis",
            seen=f"{tuple(axis)} for {ndim} axes",
        )
    return axes


def names_no_axis(op: str, x: Array, axis: Axes) -> bool:
    """Tell whether an axis is named of an array without axes, which means all of it."""
    return bool(axis) and not x.ndim and not normal_axes(op, axis, 0)


def real_axis(op: str, axis: int, ndim: int) -> int:
    """Give an axis as a number from 0, for operators that need one.

    Raises:
        OutOfRangeError: it is out of range, or there are no axes.
    """
    if not ndim:
        raise OutOfRangeError(
            f"core::{op} works along an axis, and there is none", op=f"core::{op}", seen=axis
        )
    return normal_axis(op, axis, ndim)


def on_one(op: str, kernel: Fn, x: Array, axis: int, *rest: Any) -> Array:
    """Run a kernel on an array without axes, as on one of one element."""
    normal_axis(op, axis, 0)
    return kernel(x.reshape(1), 0, *rest).reshape(())


def refuse(op: str, x: Array, axis: Any, error: Exception) -> NoReturn:
    """Raise our error for what a NumPy kernel refused.

    Raises:
        ArgumentError: always; an OutOfRangeError for an index that is not there.
    """
    if axis is not None:
        normal_axes(op, [axis] if isinstance(axis, int) else axis, x.ndim)
    kind = OutOfRangeError if isinstance(error, IndexError) else ArgumentError
    raise kind(
        f"core::{op} cannot compute this: {error}",
        op=f"core::{op}",
        seen=f"{x.dtype.name}{list(x.shape)}, axis={axis}",
    ) from None


def kept_shape(shape: Shape, axes: Sequence[int]) -> Shape:
    """Give a shape with the size 1 at some axes."""
    return tuple([1 if i in axes else size for i, size in enumerate(shape)])


def count(shape: Shape, axes: Sequence[int]) -> Any:
    """Give how many elements a reduction over some axes puts into one."""
    n: Size = 1
    for axis in axes:
        n = n * shape[axis]
    return n


# -- fakes --------------------------------------------------------------------


def reduced(op: str, x: Meta, axis: Axes, keepdims: bool, dtype: DType) -> Meta:
    """Describe a reduction: NumPy keeps the order of the other axes in memory."""
    axes = normal_axes(op, axis, x.ndim)
    rest = [i for i in range(x.ndim) if i not in axes]
    shape = tuple([x.shape[i] for i in rest])
    strides = None
    if x._strides is not None:
        left = x.space.meta(shape, dtype, tuple([x._strides[i] for i in rest]), x.device)
        strides = pointwise_strides(shape, [left])
    if not keepdims:
        return x.space.meta(shape, dtype, strides, x.device)
    whole = kept_shape(x.shape, axes)
    if strides is not None:
        known = dict(zip(rest, strides, strict=True))
        strides = tuple([known.get(i, 1) for i in range(x.ndim)])
    return x.space.meta(whole, dtype, strides, x.device)


def reduced_in_order(op: str, x: Meta, axis: Axes, keepdims: bool, dtype: DType) -> Meta:
    """Describe a reduction whose result is in C order."""
    return reduced(op, x.but(strides=None), axis, keepdims, dtype)


def same_order(x: Meta, dtype: DType) -> Meta:
    """Describe a result with the shape of `x`, which keeps the order of its axes."""
    strides = None if x._strides is None else pointwise_strides(x.shape, [x])
    return x.space.meta(x.shape, dtype, strides, x.device)


def require_elements(op: str, x: Meta, axis: Axes) -> None:
    """Refuse a reduction without identity over no elements.

    Raises:
        ArgumentError: a reduced axis is known to have size 0.
    """
    sizes = [x.shape[i] for i in normal_axes(op, axis, x.ndim)]
    if any(isinstance(size, int) and size == 0 for size in sizes):
        raise ArgumentError(
            f"core::{op} of no elements has no value",
            op=f"core::{op}",
            seen=f"shape {x.shape}, axis={axis}",
        )


def dtype_rule(kernel: Fn) -> Fn:
    """Give the dtype rule of a reduction's kernel: it is asked, once per dtypes.

    See NOTE [The kernel knows its dtypes] in `ops/pointwise.py`.
    """
    known: dict[Any, DType] = {}

    def dtype_of(dtype: DType, *given: Any) -> DType:
        key = (dtype, *given)
        if key not in known:
            known[key] = kernel(np.ones(1, dtype), [0], *given, False).dtype
        return known[key]

    return dtype_of


# -- batches ------------------------------------------------------------------


def call(name: str, *values: Any) -> Any:
    """Call a built-in operator with all arguments in schema order."""
    entry = ON_TENSORS[name]
    arguments = entry.op._schema.arguments  # type: ignore[attr-defined]
    named = {a.name: v for a, v in zip(arguments, values, strict=True) if a.kwarg_only}
    return entry(*values[: len(values) - len(named)], **named)


def past(axis: int, dim: int) -> int:
    """Count an axis (from 0) of one element among the axes of the whole batch."""
    return axis if axis < dim else axis + 1


def reduction_vmap(name: str) -> Fn:
    """Give the batching rule of a reduction `(x, axis, ..., keepdims)`."""

    def batched(info: Any, in_dims: Sequence[Any], x: Any, axis: Axes, *rest: Any) -> Any:
        dim = in_dims[0]
        axes = normal_axes(name, axis, x.ndim - 1)
        out = call(name, x, [past(a, dim) for a in axes], *rest)
        keepdims = rest[-1]
        return out, dim if keepdims else dim - sum([a < dim for a in axes])

    return batched


def along_vmap(name: str) -> Fn:
    """Give the batching rule of an operator along one axis, `(x, axis, ...)`."""

    def batched(info: Any, in_dims: Sequence[Any], x: Any, axis: int, *rest: Any) -> Any:
        dim = in_dims[0]
        at = normal_axis(name, axis, x.ndim - 1)
        if x.ndim == 1:
            return without_axis(call(name, with_axis(x), 1, *rest)), 0
        return call(name, x, past(at, dim), *rest), dim

    return batched


def with_axis(x: Any) -> Any:
    """Give each element of a batch without axes one, which it may name."""
    return ON_TENSORS["expand_dims"](x, 1)


def without_axis(x: Any) -> Any:
    """Take that axis away again."""
    return ON_TENSORS["squeeze"](x, [1])


def batch_first(x: Any, dim: int | None) -> Any:
    """Move the axis of a batch to the front; None for a value that all elements share."""
    return x if not dim else ON_TENSORS["moveaxis"](x, dim, 0)


def stacked(x: Any, dim: int | None, size: Any) -> Any:
    """Give a value with the batch's axis in front, repeated if all elements share it."""
    if dim is not None:
        return batch_first(x, dim)
    return ON_TENSORS["broadcast_to"](x, [size, *x.shape])


def together_vmap(name: str) -> Fn:
    """Give the batching rule of an operator along one axis of all, `(x, indices, ..., axis)`."""

    def rule(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
        *given, axis = args
        whole = [stacked(v, d, info.batch_size) for v, d in zip(given, in_dims, strict=False)]
        ndim = whole[0].ndim - 1
        at = normal_axis(name, axis, ndim)
        if not ndim:
            return without_axis(call(name, *map(with_axis, whole), 1)), 0
        # What is put is repeated along axes that it lacks: those of each sample, not the batch.
        values = [_behind_batch(v, ndim) for v in whole[2:]]
        return call(name, *whole[:2], *values, at + 1), 0

    return rule


def _behind_batch(x: Any, ndim: int) -> Any:
    """Put axes of size one behind the batch, so that each sample has as many axes as asked."""
    ones = [1] * (ndim + 1 - x.ndim)
    return ON_TENSORS["reshape"](x, [x.shape[0], *ones, *x.shape[1:]]) if ones else x
