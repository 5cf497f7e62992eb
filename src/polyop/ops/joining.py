"""Operators that put tensors together, repeat them, or fill them up.

Only `concat`, `stack`, `pad`, `tril` and `triu` compute; the rest are
compositions of these with views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.lazy import load
from polyop.ops.axes import real_axis
from polyop.ops.define import ON_ARRAYS, ON_TENSORS, define
from polyop.ops.door import takes
from polyop.ops.shapes import broadcast, normal_axis, promote
from polyop.ops.splitting import atleast, narrow_all
from polyop.ops.view_inverses import contiguous_copy, in_front
from polyop.ops.view_metas import refuse
from polyop.ops.views import broadcast_to, expand_dims, reshape, select, slice_axis
from polyop.symbolic import SymInt, sym_max
from polyop.tensor.meta import Meta, Shape, Size

Fn = Callable[..., Any]
Array = Any
#: NumPy's arrays have no more.
MOST_AXES = 64


# -- concat -------------------------------------------------------------------


def in_order(array: Array) -> Array:
    """Give an array whose elements lie in order: fakes need not guess NumPy's choice."""
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _concat(arrays: Sequence[Array], axis: int | None) -> Array:
    try:
        return in_order(np.concatenate(arrays, axis))
    except ValueError:
        _concat_shape([a.shape for a in arrays], axis)
        raise


def _concat_shape(shapes: Sequence[Any], axis: int | None) -> Shape:
    if not shapes:
        refuse("concat", "there is at least one tensor to join", argument="arrays", seen="[]")
    if axis is None:
        flat: Size = 0
        for shape in shapes:
            flat = flat + math.prod(shape)
        return (flat,)
    first = shapes[0]
    at = normal_axis("concat", axis, len(first))
    for shape in shapes[1:]:
        _same_but_axis(first, shape, at)
    total: Size = sum(shape[at] for shape in shapes) if first else 0
    if not first:
        refuse("concat", "tensors without axes cannot be joined", fix="call stack")
    return (*first[:at], total, *first[at + 1 :])


def _same_but_axis(first: Shape, shape: Shape, axis: int) -> None:
    pairs = enumerate(zip(first, shape, strict=False))
    same = all(a is b or a == b for i, (a, b) in pairs if i != axis)
    if len(first) != len(shape) or not same:
        refuse(
            "concat",
            f"the shapes {first} and {shape} differ in more than axis {axis}",
            argument="arrays",
            seen=shape,
        )


def _concat_meta(tensors: Sequence[Meta], axis: int | None) -> Meta:
    shape = _concat_shape([m.shape for m in tensors], axis)
    dtype = promote(*[m.dtype for m in tensors])
    return tensors[0].space.meta(shape, dtype, None, tensors[0].device)


def unconcat(g: Any, shapes: Sequence[Any], axis: int | None) -> list[Any]:
    """Give the part of each tensor in a joined gradient."""
    if axis is None:
        parts = narrow_all_of(g, 0, [math.prod(shape) for shape in shapes])
        return [p.reshape(shape) for p, shape in zip(parts, shapes, strict=True)]
    at = axis % g.ndim
    return narrow_all_of(g, at, [shape[at] for shape in shapes])


def narrow_all_of(g: Any, axis: int, sizes: Sequence[int]) -> list[Any]:
    """Give adjacent parts of an array or a tensor."""
    if isinstance(g, np.ndarray):
        return np.split(g, np.cumsum(sizes)[:-1], axis)
    return narrow_all(g, axis, sizes)


def _concat_batched(info: Any, in_dims: Any, arrays: Sequence[Any], axis: int | None) -> Any:
    full = [in_front(info, d, x) for d, x in zip(in_dims[0], arrays, strict=True)]
    if axis is None:
        full, axis = [reshape(x, [x.shape[0], -1]) for x in full], 0
    return concat(full, normal_axis("concat", axis, full[0].ndim - 1) + 1), 0


concat: Fn = define(
    "concat(Tensor[] arrays, int? axis=0) -> Tensor",
    _concat,
    fake=_concat_meta,
    grad={"arrays": "unconcat(g, [x.shape for x in arrays], axis)"},
    vmap=_concat_batched,
)


# -- stack --------------------------------------------------------------------


def _stack(arrays: Sequence[Array], axis: int) -> Array:
    _stack_shape([a.shape for a in arrays], axis)
    at = normal_axis("stack", axis, arrays[0].ndim + 1)
    place = (*(slice(None),) * at, None)
    return in_order(np.concatenate([a[place] for a in arrays], at))


def _stack_shape(shapes: Sequence[Shape], axis: int) -> Shape:
    if not shapes:
        refuse("stack", "there is at least one tensor to join", argument="arrays", seen="[]")
    first = shapes[0]
    at = normal_axis("stack", axis, len(first) + 1)
    for shape in shapes[1:]:
        if shape is not first and (len(shape) != len(first) or shape != first):
            refuse("stack", f"the shapes {first} and {shape} differ", argument="arrays", seen=shape)
    return (*first[:at], len(shapes), *first[at:])


def _stack_meta(tensors: Sequence[Meta], axis: int) -> Meta:
    shape = _stack_shape([m.shape for m in tensors], axis)
    dtype = promote(*[m.dtype for m in tensors])
    return tensors[0].space.meta(shape, dtype, None, tensors[0].device)


def unstacked(g: Any, shapes: Sequence[Any], axis: int) -> list[Any]:
    """Give the gradient of each stacked tensor."""
    if isinstance(g, np.ndarray):
        return list(np.moveaxis(g, axis, 0)) if g.ndim > 1 else [g[i, ...] for i in range(len(g))]
    return [select(g, axis, i) for i in range(len(shapes))]


def _stack_batched(info: Any, in_dims: Any, arrays: Sequence[Any], axis: int) -> Any:
    full = [in_front(info, d, x) for d, x in zip(in_dims[0], arrays, strict=True)]
    return stack(full, normal_axis("stack", axis, full[0].ndim) + 1), 0


stack: Fn = define(
    "stack(Tensor[] arrays, int axis=0) -> Tensor",
    _stack,
    fake=_stack_meta,
    grad={"arrays": "unstacked(g, [x.shape for x in arrays], axis)"},
    vmap=_stack_batched,
)
for _table in (ON_ARRAYS, ON_TENSORS):
    _table |= {"unconcat": unconcat, "unstacked": unstacked}


# -- pad ----------------------------------------------------------------------


def _pad(x: Array, before: Sequence[int], after: Sequence[int], value: Any) -> Array:
    shape: Any = _padded_shape(x.shape, before, after)
    full = np.full(shape, value, x.dtype)
    full[_inside(x.shape, before)] = x
    return full


def _inside(shape: Shape, before: Sequence[Any]) -> tuple[slice, ...]:
    return tuple(slice(b, b + n) for n, b in zip(shape, before, strict=True))


def _padded_shape(shape: Shape, before: Sequence[Size], after: Sequence[Size]) -> Shape:
    if len(before) != len(shape) or len(after) != len(shape):
        refuse("pad", f"{len(shape)} axes need as many pairs", seen=(tuple(before), tuple(after)))
    if any(isinstance(n, int) and n < 0 for n in (*before, *after)):
        refuse("pad", "a tensor is not padded by less than nothing", seen=(before, after))
    return tuple(b + n + a for n, b, a in zip(shape, before, after, strict=True))


def _pad_meta(x: Meta, before: Any, after: Any, value: Any) -> Meta:
    return x.space.meta(_padded_shape(x.shape, before, after), x.dtype, None, x.device)


def unpadded(g: Any, before: Sequence[int], after: Sequence[int]) -> Any:
    """Give the inside of a padded gradient."""
    for axis, (b, a) in enumerate(zip(before, after, strict=True)):
        if b != 0 or a != 0:
            stop = g.shape[axis] - a
            g = (
                g[(*(slice(None),) * axis, slice(b, stop))]
                if isinstance(g, np.ndarray)
                else slice_axis(g, axis, b, stop)
            )
    return g


def _pad_batched(info: Any, in_dims: Any, x: Any, before: Any, after: Any, value: Any) -> Any:  # noqa: PLR0917
    return pad_constant(in_front(info, in_dims[0], x), [0, *before], [0, *after], value), 0


ON_ARRAYS["unpadded"] = ON_TENSORS["unpadded"] = unpadded
pad_constant: Fn = define(
    "pad(Tensor x, SymInt[] before, SymInt[] after, Scalar value=0) -> Tensor",
    _pad,
    fake=_pad_meta,
    grad={"x": "unpadded(g, before, after)"},
    vmap=_pad_batched,
)


@takes("Tensor x, Any pad_width, str mode, Scalar constant_values")
def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    """Fill up a tensor on both sides of its axes.

    Args:
        x: the tensor.
        pad_width: one number, one pair, or a pair for each axis.
        mode: only `"constant"`.
        constant_values: what to fill with.

    Raises:
        ArgumentError: the widths do not fit, or another mode.
    """
    if mode != "constant":
        refuse("pad", f"no mode {mode!r}", declared="constant")
    width = _widths(pad_width, x.ndim)
    return pad_constant(x, [b for b, _ in width], [a for _, a in width], constant_values)


def _widths(given: Any, ndim: int) -> list[list[int]]:
    """Give a pair for each axis."""
    try:
        numbers = np.asarray(given)
        # A fraction would be cut off; what NumPy knows no dtype for may be an integer's symbol.
        casting: Any = "unsafe" if numbers.dtype == object else "same_kind"
        pairs = numbers.astype(np.int64, casting=casting)
        found: list[list[int]] = np.broadcast_to(pairs, (ndim, 2)).tolist()
    except (TypeError, ValueError, OverflowError):
        problem = "the widths are one number, one pair, or a pair for each axis"
        declared = f"integers that broadcast to {ndim} pairs"
        refuse("pad", problem, argument="pad_width", declared=declared, seen=given)
    return found


# -- triangles ----------------------------------------------------------------


def _triangle(name: str, keep: Fn) -> Fn:
    def kernel(x: Array, k: int) -> Array:
        if x.ndim < 2:
            refuse(name, "a matrix has at least two axes", seen=x.shape)
        mask = keep(np.tri(x.shape[-2], x.shape[-1], k - (name == "triu"), np.bool_))
        full = np.zeros(x.shape, x.dtype)
        np.copyto(full, x, where=mask)
        return full

    def fake(x: Meta, k: int) -> Meta:
        if x.ndim < 2:
            refuse(name, "a matrix has at least two axes", seen=x.shape)
        return x.space.meta(x.shape, x.dtype, None, x.device)

    def batched(info: Any, in_dims: Sequence[Any], x: Any, k: int) -> Any:
        x = in_front(info, in_dims[0], x)
        if x.ndim < 3:  # the batch is no row
            refuse(name, "a matrix has at least two axes", seen=tuple(x.shape[1:]))
        return entry(x, k), 0

    entry: Fn = define(
        f"{name}(Tensor x, int k=0) -> Tensor",
        kernel,
        fake=fake,
        grad={"x": f"{name}(g, k)"},
        vmap=batched,
    )
    return entry


tril = _triangle("tril", lambda mask: mask)
triu = _triangle("triu", np.logical_not)


# -- compositions -------------------------------------------------------------


def broadcast_shapes(*shapes: Shape) -> Shape:
    """Give the shape that shapes broadcast to."""
    return broadcast("broadcast_shapes", *map(tuple, shapes))


@takes("Tensor[] arrays")
def broadcast_arrays(*arrays: Any) -> list[Any]:
    """Repeat tensors without a copy, so that all have one shape."""
    shape = list(broadcast("broadcast_arrays", *[a.shape for a in arrays])) if arrays else []
    return [broadcast_to(a, shape) for a in arrays]


@takes("Tensor[] arrays, str indexing")
def meshgrid(*arrays: Any, indexing: str = "xy") -> list[Any]:
    """Give the coordinates of a grid, from those along each axis."""
    if indexing not in {"xy", "ij"}:
        refuse("meshgrid", f"no indexing {indexing!r}", argument="indexing", declared="xy, ij")
    n = len(arrays)
    axes = list(range(n))
    if indexing == "xy" and n > 1:
        axes[:2] = [1, 0]
    lined = [
        reshape(a, [-1 if i == axis else 1 for i in range(n)])
        for a, axis in zip(arrays, axes, strict=True)
    ]
    return broadcast_arrays(*lined)


@takes("Tensor x, Any repeats, int? axis")
def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Any:
    """Repeat each element along an axis; of the flattened tensor without one.

    Args:
        x: the tensor.
        repeats: how often, or a tensor with a number for each place of the axis.
        axis: the axis.

    Raises:
        ArgumentError: there is no such axis, or not one number for each place.
    """
    if axis is None or not x.ndim:
        at, x = normal_axis("repeat", axis or 0, 0 if axis is None else x.ndim), reshape(x, [-1])
    else:
        at = normal_axis("repeat", axis, x.ndim)
    told = isinstance(repeats, SymInt) or (isinstance(repeats, int) and repeats >= 0)
    if not told or x.ndim == MOST_AXES:  # one is inserted below
        return load("polyop.ops.differences:repeat_each")(x, repeats, at)
    shape = x.shape
    wide = broadcast_to(expand_dims(x, at + 1), [*shape[: at + 1], repeats, *shape[at + 1 :]])
    return reshape(contiguous_copy(wide), [*shape[:at], shape[at] * repeats, *shape[at + 1 :]])


@takes("Tensor x, SymInt[1] repetitions")
def tile(x: Any, repetitions: Any, /) -> Any:
    """Repeat a whole tensor along each axis; a number is for the last one."""
    repetitions = [repetitions] if isinstance(repetitions, int | SymInt) else list(repetitions)
    x = atleast(x, len(repetitions))
    times = [*[1] * (x.ndim - len(repetitions)), *repetitions]
    whole = [_beside(n, size) for n, size in zip(times, x.shape, strict=True)]
    lined = reshape(x, [size for before, _ in whole for size in before])
    wide = broadcast_to(lined, [size for _, after in whole for size in after])
    pairs = zip(times, x.shape, strict=True)
    return reshape(contiguous_copy(wide), [n * size for n, size in pairs])


def _beside(times: Any, size: Any) -> tuple[list[Any], list[Any]]:
    """Give an axis before and after it is spread: a new one beside it only where it needs one."""
    if isinstance(size, int) and size == 1:
        return [1], [times]
    if isinstance(times, int) and times == 1:
        return [size], [size]
    return [1, size], [times, size]


@takes("Tensor x, SymInt[1] shift, int[1]? axis")
def roll(x: Any, /, shift: Any, *, axis: Any = None) -> Any:
    """Shift elements along axes; those that fall out come in at the other end."""
    shifts: list[Any] = [shift] if isinstance(shift, int | SymInt) else list(shift)
    if axis is None:
        return reshape(_rolled(reshape(x, [-1]), sum(shifts), 0), list(x.shape))
    axes = [axis] if isinstance(axis, int) else list(axis)
    shifts = shifts * len(axes) if len(shifts) == 1 else shifts
    axes = axes * len(shifts) if len(axes) == 1 else axes
    if len(axes) != len(shifts):
        refuse("roll", "there is one shift for each axis", declared=axes, seen=shifts)
    for by, at in zip(shifts, axes, strict=True):  # an axis may come twice
        x = _rolled(x, by, real_axis("roll", at, x.ndim))
    return x


def _rolled(x: Any, shift: int, axis: int) -> Any:
    size = x.shape[axis]
    cut = (size - shift) % sym_max(size, 1)
    return concat([slice_axis(x, axis, cut, None), slice_axis(x, axis, 0, cut)], axis)


@takes("Tensor[] arrays")
def hstack(arrays: Sequence[Any]) -> Any:
    """Join tensors along the second axis, or the only one."""
    full = [atleast(a, 1) for a in arrays]
    return concat(full, 0 if not full or full[0].ndim == 1 else 1)


@takes("Tensor[] arrays")
def vstack(arrays: Sequence[Any]) -> Any:
    """Join tensors along the first axis; those of one axis are rows."""
    return concat([atleast(a, 2) for a in arrays], 0)
