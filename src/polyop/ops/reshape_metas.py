"""Shapes and strides of reshaped tensors, computed from metas.

Of a size that depends on data it may be unknown whether a view can be taken.
There `reshape` is taken to copy, and `view` asks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any, NoReturn

from polyop.ops.view_metas import refuse, strided
from polyop.symbolic import check, hint_of, statically_known_true
from polyop.tensor.meta import Meta, Shape, Size


def infer_shape(op: str, old: Shape, shape: Sequence[Size]) -> Shape:
    """Give the sizes that a tensor is reshaped to, with the one -1 worked out.

    Raises:
        ArgumentError: the number of elements does not fit.
    """
    unknown = [i for i, n in enumerate(shape) if isinstance(n, int) and n == -1]
    total: Size = math.prod(old)
    known: Size = math.prod(n for i, n in enumerate(shape) if i not in unknown)
    if len(unknown) > 1 or any(isinstance(n, int) and n < -1 for n in shape):
        _cannot_reshape(op, old, shape)
    if not unknown:
        fits = known is total or known == total
        if not fits:
            _cannot_reshape(op, old, shape)
        return tuple(shape)
    whole = known != 0 and total % known == 0
    if hint_of(whole) is None:
        check(whole, f"a tensor of shape {tuple(old)} is reshaped to {tuple(shape)}")
    elif not whole:
        _cannot_reshape(op, old, shape)
    sizes = list(shape)
    sizes[unknown[0]] = total // known
    return tuple(sizes)


def _cannot_reshape(op: str, old: Shape, shape: Sequence[Size]) -> NoReturn:
    refuse(
        op,
        f"a tensor of shape {tuple(old)} cannot be reshaped to {tuple(shape)}",
        argument="shape",
        declared=f"sizes whose product is {math.prod(old)}, one of them perhaps -1",
        seen=tuple(shape),
    )


def reshape_strides(x: Meta, shape: Shape, *, ask: bool) -> Shape | None:
    """Give the strides of a reshaped view, or None if its elements must be copied.

    Args:
        x: the tensor.
        shape: its new sizes.
        ask: what depends on data; otherwise the elements are copied where that decides.

    Axes are matched from the left in groups of equal size; within a group of
    old axes, each must step over exactly what lies right of it.
    """
    if any(type(n) is int and n == 0 for n in x.shape):
        return tuple(_split(shape, 1))  # no element, no place
    old = [
        (n, s) for n, s in zip(x.shape, x.strides, strict=True) if not (type(n) is int and n == 1)
    ]
    strides: list[Size] = []
    i = j = 0
    while i < len(old) and j < len(shape):
        left, right = i, j
        here: Size = old[i][0]
        there: Size = shape[j]
        i, j = i + 1, j + 1
        while type(there) is int and there == 1 and j < len(shape):
            there, j = shape[j], j + 1  # it says nothing of a symbol
        while here is not there:
            same, less = here == there, here < there
            if not (_is_told(same) and _is_told(less)):
                met = _group([n for n, _ in old], shape, left, right)
                if met is not None:
                    i, j = met
                    break
                if not ask:
                    return None
            if same:
                break
            if less:
                here = here * old[i][0]
                i += 1
            else:
                there = there * shape[j]
                j += 1
        if not _joins(old[left:i], ask):
            return None
        strides += _split(shape[right:j], old[i - 1][1])
    # What is left has size one.
    last = strides[-1] if strides else 1
    return (*strides, *[last] * (len(shape) - len(strides)))


def _group(
    old: Sequence[Size], shape: Sequence[Size], left: int, right: int
) -> tuple[int, int] | None:
    """Find where products of sizes become the same, whatever the sizes are."""
    ends = product(range(left + 1, len(old) + 1), range(right + 1, len(shape) + 1))
    found = ((i, j) for i, j in ends if _same(old[left:i], shape[right:j]))
    return next(found, None)


def _same(sizes: Sequence[Size], others: Sequence[Size]) -> bool:
    return statically_known_true(math.prod(sizes) == math.prod(others))


def _joins(group: Sequence[tuple[Size, Size]], ask: bool) -> bool:
    met = [stride == size * inner for (_, stride), (size, inner) in pairwise(group)]
    return all((ask or _is_told(joined)) and joined for joined in met)


def _is_told(condition: Any) -> bool:
    return hint_of(condition) is not None


def _split(shape: Sequence[Size], innermost: Size) -> list[Size]:
    strides = [innermost]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return strides[::-1]


def reshape_meta(x: Meta, shape: Sequence[Size], op: str = "reshape") -> Meta:
    """Describe a reshaped tensor."""
    sizes = infer_shape(op, x.shape, shape)
    if x.is_contiguous:
        return x.space.meta(sizes, x.dtype, None, x.device)
    strides = reshape_strides(x, sizes, ask=op == "view")
    return (
        x.space.meta(sizes, x.dtype, None, x.device)
        if strides is None
        else strided(x, sizes, strides)
    )


def view_meta(x: Meta, shape: Sequence[Size]) -> Meta:
    """Describe a reshaped tensor that must not be copied."""
    sizes = infer_shape("view", x.shape, shape)
    if not x.is_contiguous and reshape_strides(x, sizes, ask=True) is None:
        not_a_view(x.shape, shape, x.strides)
    return reshape_meta(x, sizes, "view")


def not_a_view(old: Shape, shape: Sequence[Size], strides: Sequence[Size]) -> NoReturn:
    """Raise the error of a `view` that would have to copy."""
    refuse(
        "view",
        f"a tensor of shape {tuple(old)} and strides {tuple(strides)} has no view of shape "
        f"{tuple(shape)}",
        argument="shape",
        seen=tuple(shape),
        fix="call reshape, which copies where it must",
    )
