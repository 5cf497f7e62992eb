"""Shapes and strides of views, computed from metas as NumPy computes them.

Sizes may be symbolic, so a size is compared only where the answer matters, and
`sym_min` and `sym_max` stand in for branches where they can. What is asked is
what must hold: the error of a size that depends on data says so (S152).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from polyop.errors import ArgumentError, OutOfRangeError
from polyop.ops.shapes import normal_axis
from polyop.schema.base_values import Known
from polyop.symbolic import sym_max, sym_min
from polyop.tensor.meta import Meta, Shape, Size, normal_strides


def refuse(op: str, problem: str, **parts: Any) -> NoReturn:
    """Raise the error of an argument that does not fit."""
    raise ArgumentError(problem, op=f"core::{op}", **parts)


def strided(x: Meta, shape: Sequence[Size], strides: Sequence[Size]) -> Meta:
    """Give the meta of a view of `x`."""
    sizes = tuple(shape)
    return x.space.meta(sizes, x.dtype, normal_strides(sizes, strides), x.device)


def normal_axes(op: str, axes: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Give axes as numbers from 0.

    Raises:
        ArgumentError: one is out of range, or comes twice.
    """
    found = tuple(normal_axis(op, axis, ndim) for axis in axes)
    if len(set(found)) != len(found):
        refuse(op, "an axis comes twice", argument="axis", seen=tuple(axes))
    return found


# -- order of axes ------------------------------------------------------------


def permute_meta(x: Meta, axes: Sequence[int]) -> Meta:
    """Describe a tensor with its axes in another order."""
    order = normal_axes("permute_dims", axes, x.ndim)
    if len(order) != x.ndim:
        refuse("permute_dims", f"{x.ndim} axes need an order of {x.ndim}", seen=tuple(axes))
    strides = x.strides
    return strided(x, [x.shape[i] for i in order], [strides[i] for i in order])


def transpose_meta(x: Meta, axis1: int, axis2: int) -> Meta:
    """Describe a tensor with two axes exchanged."""
    a, b = (normal_axis("transpose", axis, x.ndim) for axis in (axis1, axis2))
    order = list(range(x.ndim))
    if order:
        order[a], order[b] = b, a
    return permute_meta(x, order)


def matrix_transpose_meta(x: Meta) -> Meta:
    """Describe a tensor with its last two axes exchanged."""
    if x.ndim < 2:
        refuse("matrix_transpose", "a matrix has at least two axes", seen=x.shape)
    return transpose_meta(x, -1, -2)


def moved_order(ndim: int, source: Sequence[int], destination: Sequence[int]) -> list[int]:
    """Give the order of axes in which `source` axes come to lie at `destination`."""
    sources = normal_axes("moveaxis", source, ndim)
    targets = normal_axes("moveaxis", destination, ndim)
    if len(sources) != len(targets):
        refuse(
            "moveaxis", "as many destinations as sources", seen=(tuple(source), tuple(destination))
        )
    order = [axis for axis in range(ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)) if ndim else ():
        order.insert(target, axis)
    return order


def moveaxis_meta(x: Meta, source: int, destination: int) -> Meta:
    """Describe a tensor with one axis moved."""
    return permute_meta(x, moved_order(x.ndim, [source], [destination]))


# -- fewer and more axes ------------------------------------------------------


def squeezed_axes(shape: Shape, axis: Sequence[int] | None) -> tuple[int, ...]:
    """Give the axes that `squeeze` takes out.

    Raises:
        ArgumentError: one has a size other than one.
    """
    if axis is None:
        return tuple(i for i, n in enumerate(shape) if n == 1)
    axes = normal_axes("squeeze", axis, len(shape))
    for i in axes if shape else ():
        single = shape[i] == 1
        if not single:
            refuse("squeeze", f"axis {i} has size {shape[i]}", argument="axis", declared="size 1")
    return axes


def squeeze_meta(x: Meta, axis: Any) -> Meta:
    """Describe a tensor without axes of size one."""
    out = squeezed_axes(x.shape, axis)
    keep = [i for i in range(x.ndim) if i not in out]
    strides = x.strides
    return strided(x, [x.shape[i] for i in keep], [strides[i] for i in keep])


def expand_dims_meta(x: Meta, axis: int) -> Meta:
    """Describe a tensor with one more axis."""
    at = normal_axis("expand_dims", axis, x.ndim + 1)
    shape, strides = list(x.shape), list(x.strides)
    inner = shape[at] * strides[at] if at < x.ndim else 1
    shape.insert(at, 1)
    strides.insert(at, inner)
    return strided(x, shape, strides)


def expanded_shape(old: Shape, shape: Sequence[Size]) -> Shape:
    """Give the shape that `broadcast_to` makes; -1 keeps a size.

    Raises:
        ArgumentError: the old shape does not broadcast to it.
    """
    extra = len(shape) - len(old)
    sizes = list(shape)
    for i, n in enumerate(shape):
        there = old[i - extra] if i >= extra else 1
        if isinstance(n, int) and n == -1 and i >= extra:
            sizes[i] = there
            continue
        fits = n is there or there == n or there == 1  # noqa: PLR1714 - asked in this order
        if not fits:
            _cannot_broadcast(old, shape)
    if extra < 0 or any(isinstance(n, int) and n < 0 for n in sizes):
        _cannot_broadcast(old, shape)
    return tuple(sizes)


def _cannot_broadcast(old: Shape, shape: Sequence[Size]) -> NoReturn:
    refuse(
        "broadcast_to",
        f"the shape {tuple(old)} does not broadcast to {tuple(shape)}",
        argument="shape",
        declared="equal sizes, where the old one is not 1",
        seen=tuple(shape),
    )


def broadcast_to_meta(x: Meta, shape: Sequence[Size]) -> Meta:
    """Describe a tensor repeated without a copy."""
    sizes = expanded_shape(x.shape, shape)
    extra = len(sizes) - x.ndim
    strides: list[Size] = [0] * extra
    for size, old, stride in zip(sizes[extra:], x.shape, x.strides, strict=True):
        strides.append(stride if size is old or size == old else 0)
    return strided(x, sizes, strides)


# -- parts --------------------------------------------------------------------


def select_meta(x: Meta, axis: int, index: Size) -> Meta:
    """Describe a tensor at one place of an axis."""
    at = checked_index("select", x.shape, axis, index)
    strides = x.strides
    return strided(x, x.shape[:at] + x.shape[at + 1 :], strides[:at] + strides[at + 1 :])


def checked_index(op: str, shape: Shape, axis: int, index: Size) -> int:
    """Give the axis, once the index is known to be in range.

    Raises:
        OutOfRangeError: axis or index is out of range.
    """
    at = normal_axis(op, axis, len(shape))
    if not shape:
        raise OutOfRangeError(
            "a tensor without axes cannot be indexed", op=f"core::{op}", argument="axis", seen=axis
        )
    size = shape[at]
    if not (-size <= index) or not (index < size):
        raise OutOfRangeError(
            f"index {index} is out of range for axis {at} with size {size}",
            op=f"core::{op}",
            argument="index",
            declared=f"{-size} to {size - 1}",
            seen=index,
        )
    return at


def slice_length(size: Size, start: Any, stop: Any, step: int) -> Size:
    """Count the elements of a slice; `sym_min` and `sym_max` keep it free of guards."""
    if not any(isinstance(v, Known.sym_int) for v in (size, start, stop)):
        return len(range(int(size))[slice(start, stop, step)])
    if step > 0:
        first = 0 if start is None else _clamped(start, size)
        last = size if stop is None else _clamped(stop, size)
        length = last - first
    else:
        first = size - 1 if start is None else sym_min(_from_end(start, size), size - 1)
        last = -1 if stop is None else sym_max(_from_end(stop, size), -1)
        length = first - last
    wide = length if _is_whole(start, stop) else sym_max(length, 0)
    return wide if abs(step) == 1 else (wide + abs(step) - 1) // abs(step)


def _is_whole(start: Size | None, stop: Size | None) -> bool:
    return (start is None or (isinstance(start, int) and start == 0)) and stop is None


def _clamped(place: Size, size: Size) -> Size:
    if isinstance(place, int) and place == 0:
        return 0
    found: Size = sym_min(sym_max(_from_end(place, size), 0), size)
    return found


def _from_end(place: Size, size: Size) -> Size:
    return place + size if place < 0 else place


def slice_meta(x: Meta, axis: int, start: Any, stop: Any, step: int) -> Meta:
    """Describe a slice of a tensor along one axis."""
    if step == 0 or not x.shape:
        bad_slice(x.shape, axis, step)
    at = normal_axis("slice", axis, x.ndim)
    shape, strides = list(x.shape), list(x.strides)
    shape[at] = slice_length(shape[at], start, stop, step)
    strides[at] = strides[at] * step
    return strided(x, shape, strides)


def bad_slice(shape: Shape, axis: int, step: int) -> NoReturn:
    """Raise the error of a slice that makes no sense."""
    if step == 0:
        refuse("slice", "the step of a slice is not zero", argument="step", seen=step)
    normal_axis("slice", axis, len(shape))
    refuse("slice", "a tensor without axes cannot be sliced", argument="axis", seen=axis)


def diagonal_axes(ndim: int, axis1: int, axis2: int) -> tuple[int, int]:
    """Give the two axes of a diagonal as numbers from 0.

    Raises:
        ArgumentError: they are out of range, or the same.
    """
    a, b = normal_axes("diagonal", [axis1, axis2], ndim)
    return a, b


def diagonal_length(rows: Size, columns: Size, offset: int) -> Size:
    """Count the elements of a diagonal."""
    if offset == 0 and rows is columns:
        return rows
    length = sym_min(rows, columns - offset) if offset >= 0 else sym_min(rows + offset, columns)
    found: Size = sym_max(length, 0)
    return found


def diagonal_meta(x: Meta, offset: int, axis1: int, axis2: int) -> Meta:
    """Describe a diagonal, which becomes the last axis."""
    a, b = diagonal_axes(x.ndim, axis1, axis2)
    keep = [i for i in range(x.ndim) if i not in (a, b)]
    strides = x.strides
    length = diagonal_length(x.shape[a], x.shape[b], offset)
    return strided(
        x,
        [*(x.shape[i] for i in keep), length],
        [*(strides[i] for i in keep), strides[a] + strides[b]],
    )


def flip_meta(x: Meta, axis: Sequence[int] | None) -> Meta:
    """Describe a tensor read backwards along axes."""
    axes = range(x.ndim) if axis is None else normal_axes("flip", axis, x.ndim)
    strides = [-s if i in axes else s for i, s in enumerate(x.strides)]
    return strided(x, x.shape, strides)
