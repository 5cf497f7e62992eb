"""ONNX forms of views, joins, indexing and of tensors made anew."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.dispatch.namespaces import ops
from polyop.export.onnx.model import OnnxModel, Value
from polyop.export.onnx.registry import Untranslatable, register_onnx
from polyop.symbolic import is_symbolic

core = ops.core
#: The end of an axis, whatever its size.
END = 2**62


@register_onnx(core.view.default)
@register_onnx(core.reshape.default)
def reshape_onnx(model: OnnxModel, x: Value, shape: list[Any]) -> Value:
    """Give the elements another shape."""
    # With allowzero a 0 means no elements, and then -1 has no meaning.
    allowzero = int(-1 not in [n for n in shape if type(n) is int])
    return model.op("Reshape", x, model.ints(shape), allowzero=allowzero)


@register_onnx(core.permute_dims.default)
def permute_dims_onnx(model: OnnxModel, x: Value, axes: list[int]) -> Value:
    """Reorder the axes."""
    ndim = model.meta(x).ndim
    return model.op("Transpose", x, perm=[a % ndim for a in axes])


@register_onnx(core.transpose.default)
def transpose_onnx(model: OnnxModel, x: Value, axis1: int, axis2: int) -> Value:
    """Swap two axes."""
    order = list(range(model.meta(x).ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return model.op("Transpose", x, perm=order)


@register_onnx(core.matrix_transpose.default)
def matrix_transpose_onnx(model: OnnxModel, x: Value) -> Value:
    """Swap the last two axes."""
    return transpose_onnx(model, x, -1, -2)


@register_onnx(core.moveaxis.default)
def moveaxis_onnx(model: OnnxModel, x: Value, source: int, destination: int) -> Value:
    """Move one axis."""
    ndim = model.meta(x).ndim
    order = [axis for axis in range(ndim) if axis != source % ndim]
    order.insert(destination % ndim, source % ndim)
    return model.op("Transpose", x, perm=order)


@register_onnx(core.expand_dims.default)
def expand_dims_onnx(model: OnnxModel, x: Value, axis: int) -> Value:
    """Add an axis of size one."""
    return model.op("Unsqueeze", x, model.constant([axis], np.int64))


@register_onnx(core.squeeze.default)
def squeeze_onnx(model: OnnxModel, x: Value, axis: list[int] | None) -> Value:
    """Drop axes of size one; a size that changes is taken to be none."""
    shape = model.meta(x).shape
    if axis is None:
        axis = [i for i, n in enumerate(shape) if not is_symbolic(n) and n == 1]
    kept = [a for a in axis if not is_symbolic(shape[a]) and shape[a] == 1]
    if any(is_symbolic(shape[a]) for a in axis):
        raise Untranslatable("an axis whose size changes")
    return model.op("Squeeze", x, model.constant(kept, np.int64)) if kept else x


@register_onnx(core.broadcast_to.default)
def broadcast_to_onnx(model: OnnxModel, x: Value, shape: list[Any]) -> Value:
    """Repeat axes of size one."""
    # ONNX broadcasts both ways; a size that is left alone is 1 there.
    return model.op("Expand", x, model.ints([1 if n in (-1,) else n for n in shape]))


@register_onnx(core.flip.default)
def flip_onnx(model: OnnxModel, x: Value, axis: list[int] | None) -> Value:
    """Reverse axes."""
    ndim = model.meta(x).ndim
    axes = list(range(ndim)) if axis is None else [a % ndim for a in axis]
    columns = ([-1] * len(axes), [-END] * len(axes), axes, [-1] * len(axes))
    return model.op("Slice", x, *[model.constant(c, np.int64) for c in columns])


@register_onnx(core.select.default)
def select_onnx(model: OnnxModel, x: Value, axis: int, index: Any) -> Value:
    """Take one place of an axis out."""
    place = model.constant(index, np.int64) if type(index) is int else index
    return model.op("Gather", x, place, axis=axis)


@register_onnx(core.slice.default)
def slice_onnx(  # noqa: PLR0917 - the operator's own arguments
    model: OnnxModel, x: Value, axis: int, start: Any, stop: Any, step: int
) -> Value:
    """Take a range of an axis, as Python counts."""
    if step < 0:
        first, last = (-1 if start is None else start), (-END if stop is None else stop)
    else:
        first, last = (0 if start is None else start), (END if stop is None else stop)
    columns = ([first], [last], [axis], [step])
    return model.op("Slice", x, *map(model.ints, columns))


@register_onnx(core.concat.default)
def concat_onnx(model: OnnxModel, arrays: list[Value], axis: int | None) -> Value:
    """Join along an axis."""
    given = [model.cast(x, model.out.dtype) for x in arrays]
    if axis is None:
        given = [model.op("Reshape", x, model.constant([-1], np.int64)) for x in given]
    return model.op("Concat", *given, axis=axis or 0)


@register_onnx(core.stack.default)
def stack_onnx(model: OnnxModel, arrays: list[Value], axis: int) -> Value:
    """Join along a new axis."""
    place = model.constant([axis], np.int64)
    given = [model.op("Unsqueeze", model.cast(x, model.out.dtype), place) for x in arrays]
    return model.op("Concat", *given, axis=axis)


@register_onnx(core.pad.default)
def pad_onnx(model: OnnxModel, x: Value, before: list[Any], after: list[Any], value: Any) -> Value:
    """Put a border around."""
    pads = model.ints([*before, *after])
    return model.op("Pad", x, pads, model.constant(value, model.out.dtype), mode="constant")


@register_onnx(core.tril.default)
def tril_onnx(model: OnnxModel, x: Value, k: int) -> Value:
    """Keep what is on or below a diagonal."""
    return model.op("Trilu", x, model.constant(k, np.int64), upper=0)


@register_onnx(core.triu.default)
def triu_onnx(model: OnnxModel, x: Value, k: int) -> Value:
    """Keep what is on or above a diagonal."""
    return model.op("Trilu", x, model.constant(k, np.int64), upper=1)


# -- indexing -----------------------------------------------------------------


@register_onnx(core.index.default)
def index_onnx(model: OnnxModel, x: Value, indices: list[Value | None]) -> Value:
    """Take places of one axis."""
    places = [i for i, index in enumerate(indices) if index is not None]
    index = indices[places[0]] if len(places) == 1 else None
    if index is None or model.dtype(index).kind not in "iu":
        raise Untranslatable("several indices, or a mask")
    return model.op("Gather", x, model.cast(index, np.dtype("int64")), axis=places[0])


@register_onnx(core.take_along_axis.default)
def take_along_axis_onnx(model: OnnxModel, x: Value, indices: Value, *, axis: int) -> Value:
    """Take a place for each element."""
    ndim = model.meta(x).ndim
    for i, (n, m) in enumerate(zip(model.meta(x).shape, model.meta(indices).shape, strict=True)):
        if i != axis % ndim and n is not m and (is_symbolic(n) or is_symbolic(m) or n != m):
            raise Untranslatable("indices of another shape")
    return model.op("GatherElements", x, model.cast(indices, np.dtype("int64")), axis=axis)


@register_onnx(core.select_scatter.default)
def select_scatter_onnx(model: OnnxModel, x: Value, part: Value, axis: int, index: Any) -> Value:
    """Put a part into one place of an axis."""
    if type(index) is not int:
        raise Untranslatable("an index that changes")
    given = model.op("Unsqueeze", model.cast(part, model.out.dtype), model.ints([axis]))
    return _put(model, x, given, axis, index, END if index == -1 else index + 1)


@register_onnx(core.slice_scatter.default)
def slice_scatter_onnx(  # noqa: PLR0917 - the operator's own arguments
    model: OnnxModel, x: Value, part: Value, axis: int, start: Any, stop: Any, step: int
) -> Value:
    """Put a part into a range of an axis."""
    first, last = (0 if start is None else start), (END if stop is None else stop)
    if step != 1 or type(first) is not int or type(last) is not int or last < first:
        raise Untranslatable("a range that changes, or has gaps")
    if (first < 0) != (last < 0) and last != END:
        raise Untranslatable("a range counted from both ends")
    return _put(model, x, model.cast(part, model.out.dtype), axis, first, last)


def _put(  # noqa: PLR0917 - a range of an axis has three
    model: OnnxModel, x: Value, part: Value, axis: int, first: int, last: int
) -> Value:
    before = slice_onnx(model, x, axis, None, first, 1)
    after = slice_onnx(model, x, axis, last, None, 1)
    return model.op("Concat", before, part, after, axis=axis)


# -- tensors made anew --------------------------------------------------------


@register_onnx(core.full.default)
def full_onnx(
    model: OnnxModel, size: list[Any], value: Any, *, dtype: DType | None, device: Any
) -> Value:
    """Fill a new tensor."""
    return model.op("Expand", model.operand(value, model.out.dtype), model.ints(size))


@register_onnx(core.zeros.default)
def zeros_onnx(model: OnnxModel, size: list[Any], *, dtype: DType | None, device: Any) -> Value:
    """Fill a new tensor with zeros."""
    return full_onnx(model, size, 0, dtype=dtype, device=device)


@register_onnx(core.ones.default)
def ones_onnx(model: OnnxModel, size: list[Any], *, dtype: DType | None, device: Any) -> Value:
    """Fill a new tensor with ones."""
    return full_onnx(model, size, 1, dtype=dtype, device=device)


@register_onnx(core.full_like.default)
def full_like_onnx(
    model: OnnxModel, x: Value, fill_value: Any, *, dtype: DType | None, device: Any
) -> Value:
    """Fill a tensor of the same shape."""
    return fill_onnx(model, x, fill_value)


@register_onnx(core.zeros_like.default)
def zeros_like_onnx(model: OnnxModel, x: Value, *, dtype: DType | None, device: Any) -> Value:
    """Fill a tensor of the same shape with zeros."""
    return fill_onnx(model, x, 0)


@register_onnx(core.ones_like.default)
def ones_like_onnx(model: OnnxModel, x: Value, *, dtype: DType | None, device: Any) -> Value:
    """Fill a tensor of the same shape with ones."""
    return fill_onnx(model, x, 1)


@register_onnx(core.fill.default)
def fill_onnx(model: OnnxModel, x: Value, value: Any) -> Value:
    """Give a tensor of the same shape with one value."""
    return model.op("Expand", model.operand(value, model.out.dtype), model.op("Shape", x))


@register_onnx(core.copy.default)
def copy_onnx(model: OnnxModel, x: Value, src: Value) -> Value:
    """Give the elements of another tensor in this one's shape and dtype."""
    return model.op("Expand", model.cast(src, model.out.dtype), model.op("Shape", x))
