"""Shapes, dtypes and strides of results, computed from metas.

Sizes may be symbolic. A question about one (`a == b`) may add a guard, so each
is asked once, identity first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.errors import ArgumentError, OutOfRangeError
from polyop.symbolic import SymInt
from polyop.tensor.meta import Meta, Shape, Size, normal_strides


def broadcast(op: str, *shapes: Shape) -> Shape:
    """Give the shape that shapes broadcast to.

    Raises:
        ArgumentError: two sizes differ, and neither is one.
    """
    first = shapes[0]
    if all(shape is first for shape in shapes):
        return first
    ndim = max(len(shape) for shape in shapes)
    return tuple(_broadcast_axis(op, shapes, axis - ndim) for axis in range(ndim))


def _broadcast_axis(op: str, shapes: Sequence[Shape], axis: int) -> Size:
    result: Size = 1
    for shape in shapes:
        if len(shape) < -axis:
            continue
        size = shape[axis]
        if size is result or (type(size) is int and size == 1):
            continue
        if type(result) is int and result == 1:
            result = size
        elif not (size == result):  # noqa: SIM201 - guards hold what was asked: equality
            if size == 1:
                continue
            if result == 1:
                result = size
                continue
            raise ArgumentError(
                f"the shapes {' and '.join(map(str, shapes))} do not broadcast",
                op=f"core::{op}",
                seen=f"sizes {result} and {size} at axis {axis}",
                fix="reshape an argument, so that sizes are equal or one",
            )
    return result


def promote(*dtypes: Any) -> DType:
    """Give the dtype that arrays, and Python numbers beside them, promote to: NumPy's rule."""
    first = dtypes[0]
    if all(d is first for d in dtypes) and isinstance(first, np.dtype):
        return first
    return np.result_type(*dtypes)


def pointwise_strides(shape: Shape, metas: Sequence[Meta]) -> Shape | None:
    """Give the strides of a pointwise result: NumPy keeps the order of its operands' axes."""
    if all(meta._strides is None for meta in metas):
        return None
    given = [_broadcast_strides(meta, len(shape)) for meta in metas]
    strides: list[Size] = [1] * len(shape)
    step: Size = 1
    for axis in _axis_order(len(shape), given):
        strides[axis] = step
        step = step * shape[axis]
    return normal_strides(shape, strides)


def _broadcast_strides(meta: Meta, ndim: int) -> list[Size]:
    """Give the strides of all axes; zero where the operand is repeated and so has no say."""
    own = [0 if _is_one(n) else s for n, s in zip(meta.shape, meta.strides, strict=True)]
    return [0] * (ndim - len(own)) + own


def _is_one(size: Size) -> bool:
    return type(size) is int and size == 1


def _magnitude(stride: Size) -> Any:
    # A symbol of another library is compared by it, with guards of its own.
    hint = stride.hint if isinstance(stride, SymInt) else stride
    return abs(hint) if hint is not None else 1 << 62


def _axis_order(ndim: int, given: Sequence[Sequence[Size]]) -> list[int]:
    """Give the axes from the innermost: those of smaller strides first, ties in C order."""
    axes = list(range(ndim - 1, -1, -1))
    # Insertion, as NumPy does it: an axis moves inwards past those that every
    # operand with a say strides over more widely.
    done: list[int] = []
    for axis in axes:
        at = len(done)
        for i in range(len(done) - 1, -1, -1):
            verdict = _compare(axis, done[i], given)
            if verdict > 0:
                break
            if verdict < 0:
                at = i
        done.insert(at, axis)
    return done


def _compare(a: int, b: int, given: Sequence[Sequence[Size]]) -> int:
    """Tell whether axis `a` belongs inside (-1) or outside (1) of `b`; 0 if nothing says so."""
    verdict = 0
    for strides in given:
        x, y = _magnitude(strides[a]), _magnitude(strides[b])
        if x == 0 or y == 0:
            continue
        if x >= y:
            return 1  # where operands disagree, C order wins
        verdict = -1
    return verdict


def normal_axis(op: str, axis: int, ndim: int) -> int:
    """Give an axis as a number from 0; a shape without axes has one to name, as in PyTorch.

    Raises:
        OutOfRangeError: there is no such axis.
    """
    if not -max(ndim, 1) <= axis < max(ndim, 1):
        raise OutOfRangeError(
            f"axis {axis} is out of range for {ndim} axes",
            op=f"core::{op}",
            declared=f"{-ndim} to {ndim - 1}" if ndim else "0 or -1",
            seen=axis,
        )
    return axis % ndim if ndim else 0
