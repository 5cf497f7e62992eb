"""Views: operators whose result shares the memory of its argument.

Each is a few words on one tensor; lists of views (`split`, `unstack`, ...) and
other spellings are compositions in `ops/splitting.py`. The gradients of views
that leave elements out put the gradient into zeros (`select_grad`, ...); those
operators are linear, so each pair is the other's gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.ops import reshape_metas
from polyop.ops import view_metas as metas
from polyop.ops.define import ON_ARRAYS, ON_TENSORS, define
from polyop.ops.shapes import normal_axis
from polyop.schema.tags import Tag
from polyop.tensor.meta import normal_strides

Fn = Callable[..., Any]
Array = Any
WHOLE = slice(None)

#: By view operator: `(base, new value of the view, *static arguments) -> new value of the base`;
#: filled in `ops/view_inverses.py`.
VIEW_INVERSES: dict[str, Fn] = {}


def front(x: Any, axis: int) -> Any:
    """Give a tensor with an axis moved to the front."""
    return x if axis == 0 else moveaxis(x, axis, 0)


def behind(rule: Fn) -> Fn:
    """Make a vmap rule of a function `(x with the batch in front, number of other axes, ...)`."""

    def batched(info: Any, in_dims: Sequence[Any], x: Any, *statics: Any) -> Any:
        x = front(x, in_dims[0])
        return rule(x, x.ndim - 1, *statics), 0

    return batched


def inverse_order(axes: Sequence[int]) -> list[int]:
    """Give the order of axes that undoes an order."""
    inverse = [0] * len(axes)
    for i, axis in enumerate(axes):
        inverse[axis] = i
    return inverse


ON_ARRAYS["inverse_order"] = ON_TENSORS["inverse_order"] = inverse_order


# -- shape --------------------------------------------------------------------


def _reshape(x: Array, shape: Sequence[int]) -> Array:
    try:
        return x.reshape(shape)
    except ValueError:
        reshape_metas.infer_shape("reshape", x.shape, shape)
        raise


def _view(x: Array, shape: Sequence[int]) -> Array:
    try:
        return x.reshape(shape, copy=False)
    except ValueError:
        reshape_metas.infer_shape("view", x.shape, shape)
        reshape_metas.not_a_view(x.shape, shape, [s // x.itemsize for s in x.strides])


def _reshape_batched(x: Any, n: int, shape: Sequence[int]) -> Any:
    sizes = reshape_metas.infer_shape("reshape", x.shape[1:], shape)
    return reshape(x, [x.shape[0], *sizes])


def _view_batched(x: Any, n: int, shape: Sequence[int]) -> Any:
    sizes = reshape_metas.infer_shape("view", x.shape[1:], shape)
    return view(x, [x.shape[0], *sizes])


reshape = define(
    "reshape(Tensor(a) x, SymInt[] shape) -> Tensor(a)",
    _reshape,
    fake=reshape_metas.reshape_meta,
    grad={"x": "reshape(g, x.shape)"},
    vmap=behind(_reshape_batched),
    tags=(Tag.maybe_aliasing_or_mutating,),
)
view = define(
    "view(Tensor(a) x, SymInt[] shape) -> Tensor(a)",
    _view,
    fake=reshape_metas.view_meta,
    grad={"x": "reshape(g, x.shape)"},
    vmap=behind(_view_batched),
)


# -- order of axes ------------------------------------------------------------


def _permute(x: Array, axes: Sequence[int]) -> Array:
    try:
        return x.transpose(axes)
    except ValueError:
        metas.normal_axes("permute_dims", axes, x.ndim)
        metas.refuse("permute_dims", f"{x.ndim} axes need an order of {x.ndim}", seen=tuple(axes))


def _permute_batched(x: Any, n: int, axes: Sequence[int]) -> Any:
    return permute_dims(x, [0, *(a + 1 for a in metas.normal_axes("permute_dims", axes, n))])


permute_dims = define(
    "permute_dims(Tensor(a) x, int[] axes) -> Tensor(a)",
    _permute,
    fake=metas.permute_meta,
    grad={"x": "permute_dims(g, inverse_order(axes))"},
    vmap=behind(_permute_batched),
)


def _transpose(x: Array, axis1: int, axis2: int) -> Array:
    try:
        return x.swapaxes(axis1, axis2)
    except ValueError:
        normal_axis("transpose", axis1, x.ndim)
        normal_axis("transpose", axis2, x.ndim)
        if not x.ndim:
            return x.view()
        raise


def _transpose_batched(x: Any, n: int, axis1: int, axis2: int) -> Any:
    a, b = (normal_axis("transpose", axis, n) for axis in (axis1, axis2))
    return transpose(x, a + 1, b + 1) if n else alias(x)


transpose = define(
    "transpose(Tensor(a) x, int axis1, int axis2) -> Tensor(a)",
    _transpose,
    fake=metas.transpose_meta,
    grad={"x": "transpose(g, axis1, axis2)"},
    vmap=behind(_transpose_batched),
)


def _matrix_transpose(x: Array) -> Array:
    if x.ndim < 2:
        metas.refuse("matrix_transpose", "a matrix has at least two axes", seen=x.shape)
    return x.swapaxes(-1, -2)


def _matrix_transpose_batched(x: Any, n: int) -> Any:
    if n < 2:
        metas.refuse("matrix_transpose", "a matrix has at least two axes", seen=x.shape[1:])
    return matrix_transpose(x)


matrix_transpose: Fn = define(
    "matrix_transpose(Tensor(a) x) -> Tensor(a)",
    _matrix_transpose,
    fake=metas.matrix_transpose_meta,
    grad={"x": "matrix_transpose(g)"},
    vmap=behind(_matrix_transpose_batched),
)


def _moveaxis(x: Array, source: int, destination: int) -> Array:
    return x.transpose(metas.moved_order(x.ndim, [source], [destination]))


def _moveaxis_batched(x: Any, n: int, source: int, destination: int) -> Any:
    order = metas.moved_order(n, [source], [destination])
    return permute_dims(x, [0, *(a + 1 for a in order)])


#: One axis, which is the hot case; `splitting.moveaxis` takes several.
moveaxis = define(
    "moveaxis(Tensor(a) x, int source, int destination) -> Tensor(a)",
    _moveaxis,
    fake=metas.moveaxis_meta,
    grad={"x": "moveaxis(g, destination, source)"},
    vmap=behind(_moveaxis_batched),
)


# -- fewer and more axes ------------------------------------------------------


def _squeeze(x: Array, axis: Sequence[int] | None) -> Array:
    out = metas.squeezed_axes(x.shape, axis)
    return x.reshape([n for i, n in enumerate(x.shape) if i not in out])


def _squeeze_batched(x: Any, n: int, axis: Sequence[int] | None) -> Any:
    return squeeze(x, [a + 1 for a in metas.squeezed_axes(x.shape[1:], axis) if n])


squeeze = define(
    "squeeze(Tensor(a) x, int[1]? axis=None) -> Tensor(a)",
    _squeeze,
    fake=metas.squeeze_meta,
    grad={"x": "reshape(g, x.shape)"},
    vmap=behind(_squeeze_batched),
)


def _expand_dims(x: Array, axis: int) -> Array:
    at = normal_axis("expand_dims", axis, x.ndim + 1)
    return x[(*(WHOLE,) * at, None, ...)]


expand_dims: Fn = define(
    "expand_dims(Tensor(a) x, int axis=0) -> Tensor(a)",
    _expand_dims,
    fake=metas.expand_dims_meta,
    grad={"x": "reshape(g, x.shape)"},
    vmap=behind(lambda x, n, axis: expand_dims(x, normal_axis("expand_dims", axis, n + 1) + 1)),
)
unsqueeze = expand_dims
for _table in (ON_ARRAYS, ON_TENSORS):
    _table["unsqueeze"] = _table["expand_dims"]


def _broadcast_to(x: Array, shape: Sequence[int]) -> Array:
    sizes: Any = metas.expanded_shape(x.shape, shape) if -1 in shape else shape
    try:
        found = np.broadcast_to(x, sizes)
        if not found.size and x.flags.writeable:
            found.flags.writeable = True  # it repeats no element, and may be written
        return found
    except ValueError:
        metas.expanded_shape(x.shape, shape)
        raise


def _broadcast_to_batched(x: Any, n: int, shape: Sequence[Any]) -> Any:
    sizes = metas.expanded_shape(x.shape[1:], shape)
    if len(sizes) > n:
        x = reshape(x, [x.shape[0], *[1] * (len(sizes) - n), *x.shape[1:]])
    return broadcast_to(x, [x.shape[0], *sizes])


broadcast_to = define(
    "broadcast_to(Tensor(a) x, SymInt[] shape) -> Tensor(a)",
    _broadcast_to,
    fake=metas.broadcast_to_meta,
    grad={"x": "sum_to(g, x.shape)"},
    vmap=behind(_broadcast_to_batched),
)


# -- parts --------------------------------------------------------------------


def _select(x: Array, axis: int, index: int) -> Array:
    try:
        if axis >= 0:
            return x[(*(WHOLE,) * axis, index, ...)]
        return x[(..., index, *(WHOLE,) * (-axis - 1))]
    except IndexError:
        metas.checked_index("select", x.shape, axis, index)
        raise


select: Fn = define(
    "select(Tensor(a) x, int axis, SymInt index) -> Tensor(a)",
    _select,
    fake=metas.select_meta,
    grad={"x": "select_grad(g, x.shape, axis, index)"},
    vmap=behind(lambda x, n, axis, index: select(x, normal_axis("select", axis, n) + 1, index)),
)


def _slice(x: Array, axis: int, start: Any, stop: Any, step: int) -> Array:
    try:
        if axis >= 0:
            return x[(*(WHOLE,) * axis, slice(start, stop, step))]
        return x[(..., slice(start, stop, step), *(WHOLE,) * (-axis - 1))]
    except (IndexError, ValueError):
        metas.bad_slice(x.shape, axis, step)


def _slice_batched(x: Any, n: int, axis: int, *part: Any) -> Any:
    return slice_axis(x, normal_axis("slice", axis, n) + 1, *part)


slice_axis = define(
    "slice(Tensor(a) x, int axis, SymInt? start=None, SymInt? stop=None, int step=1) -> Tensor(a)",
    _slice,
    fake=metas.slice_meta,
    grad={"x": "slice_grad(g, x.shape, axis, start, stop, step)"},
    vmap=behind(_slice_batched),
)


def _diagonal(x: Array, offset: int, axis1: int, axis2: int) -> Array:
    a, b = metas.diagonal_axes(x.ndim, axis1, axis2)
    part = x.diagonal(offset, a, b)
    part.flags.writeable = x.flags.writeable  # NumPy's is read-only, for reasons of its own
    return part


def _diagonal_batched(x: Any, n: int, offset: int, axis1: int, axis2: int) -> Any:
    a, b = metas.diagonal_axes(n, axis1, axis2)
    return diagonal(x, offset, a + 1, b + 1)


diagonal = define(
    "diagonal(Tensor(a) x, int offset=0, int axis1=0, int axis2=1) -> Tensor(a)",
    _diagonal,
    fake=metas.diagonal_meta,
    grad={"x": "diagonal_grad(g, x.shape, offset, axis1, axis2)"},
    vmap=behind(_diagonal_batched),
)


def _flip(x: Array, axis: Sequence[int] | None) -> Array:
    axes = range(x.ndim) if axis is None else metas.normal_axes("flip", axis, x.ndim)
    return x[tuple(slice(None, None, -1) if i in axes else WHOLE for i in range(x.ndim)) + (...,)]


def _flip_batched(x: Any, n: int, axis: Sequence[int] | None) -> Any:
    axes = range(n) if axis is None else metas.normal_axes("flip", axis, n)
    return flip(x, [a + 1 for a in axes] if n else [])


flip = define(
    "flip(Tensor(a) x, int[1]? axis=None) -> Tensor(a)",
    _flip,
    fake=metas.flip_meta,
    grad={"x": "flip(g, axis)"},
    vmap=behind(_flip_batched),
)


# -- the tensor itself --------------------------------------------------------

alias: Fn = define(
    "alias(Tensor(a) x) -> Tensor(a)",
    np.ndarray.view,
    fake=lambda x: x,
    grad={"x": "g"},
    vmap=behind(lambda x, _: alias(x)),
)


def _contiguous_batched(x: Any, n: int) -> Any:
    # With gaps between them, samples may lie in order though the batch does not.
    gaps = not x.is_contiguous() and normal_strides(x.shape[1:], x.stride()[1:]) is None
    return alias(x) if gaps else contiguous(x)


#: The tensor itself if its elements lie in order, else such a copy: each run decides.
contiguous: Fn = define(
    "contiguous(Tensor(a) x) -> Tensor(a)",
    lambda x: x.view() if x.flags.c_contiguous else x.copy("C"),
    fake=lambda x: x if x.is_contiguous else x.space.meta(x.shape, x.dtype, None, x.device),
    grad={"x": "g"},
    vmap=behind(_contiguous_batched),
    tags=(Tag.maybe_aliasing_or_mutating,),
)
#: A gradient formula without arguments: nothing flows back.
detach: Fn = define(
    "detach(Tensor(a) x) -> Tensor(a)",
    np.ndarray.view,
    fake=lambda x: x,
    grad={},
    vmap=behind(lambda x, _: detach(x)),
)
