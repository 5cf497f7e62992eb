"""Differences of neighbours, and which elements are among others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polyop.errors import ArgumentError
from polyop.ops.axes import batch_first, real_axis
from polyop.ops.comparison import equal, logical_not, not_equal
from polyop.ops.creation import asarray
from polyop.ops.define import define
from polyop.ops.door import takes
from polyop.ops.elementwise import subtract
from polyop.ops.indexing import take
from polyop.ops.joining import concat
from polyop.ops.reductions import any as any_of
from polyop.ops.signatures import announce
from polyop.ops.views import expand_dims, reshape, slice_axis
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor

Array = Any


@takes("Tensor x, int n, int axis, Tensor? prepend, Tensor? append")
def diff(x: Any, /, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """Subtract each element along an axis from the next one.

    Args:
        x: numbers; of bools it is told which differ.
        n: how often it is done.
        axis: the axis, which becomes shorter by `n`.
        prepend: put before `x` along the axis first.
        append: put behind it.

    Raises:
        ArgumentError: there is no such axis, or `n` is negative.
    """
    at = real_axis("diff", axis, len(x.shape))
    if n < 0:
        raise ArgumentError("differences are taken n times", argument="n", declared=">= 0", seen=n)
    if n == 0:
        return x
    parts = [part for part in (prepend, x, append) if part is not None]
    x = concat(parts, at) if len(parts) > 1 else x
    less = not_equal if x.dtype.kind == "b" else subtract
    for _ in range(n):
        behind = slice_axis(x, at, 1, None, 1)
        x = less(behind, slice_axis(x, at, 0, behind.shape[at], 1))
    return x


# -- membership -----------------------------------------------------------------


def _among(x: Array, values: Array, invert: bool) -> Array:
    return np.asarray(np.isin(x, values, invert=invert), order="C")


def _among_fake(x: Meta, values: Meta, invert: bool) -> Meta:
    return x.but(dtype=np.dtype(bool), strides=None)


def _among_vmap(info: Any, in_dims: Sequence[Any], x: Any, values: Any, invert: bool) -> Any:
    if in_dims[1] is None:
        return among(x, values, invert), in_dims[0]
    x, values = batch_first(x, in_dims[0]), batch_first(values, in_dims[1])
    ones = [1] * (len(x.shape) - (in_dims[0] is not None))
    flat = reshape(values, [values.shape[0], *ones, -1])
    found = any_of(equal(expand_dims(x, -1), flat), axis=[-1])
    return (logical_not(found) if invert else found), 0


among = define(
    "among(Tensor x, Tensor values, bool invert=False) -> Tensor",
    _among,
    fake=_among_fake,
    vmap=_among_vmap,
)


def isin(x1: Any, x2: Any, /, *, assume_unique: bool = False, invert: bool = False) -> Any:
    """Tell which elements of `x1` are among those of `x2`; with `invert`, which are not.

    `assume_unique` is taken, and does not matter.
    """
    x1, x2 = _beside(x1, x2), _beside(x2, x1)
    return among(x1, x2, invert)


def _beside(x: Any, other: Any) -> Any:
    """Give a tensor; a Python number becomes one of the dtype it has beside another tensor."""
    if isinstance(x, bool | int | float | complex) and isinstance(other, Tensor):
        return asarray(x, dtype=np.result_type(x, other.dtype), device=other.device)
    return x


# -- repetition -------------------------------------------------------------------


def repeat_each(x: Any, repeats: Any, axis: int) -> Any:
    """Repeat each place of an axis as often as its number says; the numbers are looked at.

    Raises:
        ArgumentError: there is not one number for each place, or one is negative.
    """
    counts = asarray(repeats).tolist()
    counts = counts * x.shape[axis] if isinstance(counts, list) and len(counts) == 1 else counts
    counts = counts if isinstance(counts, list) else [counts] * x.shape[axis]
    if len(counts) != x.shape[axis] or any(not isinstance(n, int) or n < 0 for n in counts):
        raise ArgumentError(
            "repeat takes a number, or one for each place of the axis",
            argument="repeats",
            declared=f"{x.shape[axis]} numbers that are not negative",
            seen=counts,
        )
    places = np.repeat(np.arange(len(counts)), np.asarray(counts, dtype=np.int64))
    return take(x, asarray(places), axis=axis)


__all__ = ["among", "diff", "isin", "repeat_each"]
announce(globals())
