"""Functions that are a few views each: parts of a tensor as a list, and other spellings.

They are compositions of the operators in `ops/views.py`, so every layer acts
on them without a rule of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from polyop.errors import OutOfRangeError
from polyop.ops import views
from polyop.ops.door import takes
from polyop.ops.shapes import normal_axis
from polyop.ops.view_metas import moved_order, refuse
from polyop.ops.views import broadcast_to, expand_dims, permute_dims, reshape, select, slice_axis
from polyop.symbolic import SymBool, SymInt
from polyop.symbolic.check import holds
from polyop.tensor.tensor import Tensor

# -- lists of views -----------------------------------------------------------


@takes("Tensor x, SymInt[1] split_size_or_sections, int axis")
def split(x: Any, split_size_or_sections: int | Sequence[int], axis: int = 0) -> list[Any]:
    """Give parts of a tensor along an axis, of one size or of the given sizes.

    Raises:
        ArgumentError: the given sizes do not add up to that of the axis.
    """
    at = _own_axis("split", axis, x)
    size = x.shape[at]
    sizes = split_size_or_sections
    if isinstance(sizes, Sequence):
        fits = sum(sizes) == size
        if not fits:
            refuse("split", f"the parts do not add up to the size {size} of axis {at}", seen=sizes)
        return narrow_all(x, at, sizes)
    if sizes <= 0:
        refuse("split", "the size of a part is positive", seen=sizes)
    starts = range(0, max(int(size), 1), sizes)
    return [slice_axis(x, at, i, min(i + sizes, size)) for i in starts]


def _own_axis(name: str, axis: int, x: Any) -> int:
    """Give an axis as a number from 0, which a tensor without axes has not."""
    if not x.ndim:
        refuse(name, "a tensor without axes has none to divide", argument="x")
    return normal_axis(name, axis, x.ndim)


def narrow_all(x: Any, axis: int, sizes: Sequence[int]) -> list[Any]:
    """Give adjacent parts of the given sizes."""
    parts, start = [], 0
    for size in sizes:
        parts.append(slice_axis(x, axis, start, start + size))
        start = start + size
    return parts


@takes("Tensor x, int chunks, int axis")
def chunk(x: Any, chunks: int, axis: int = 0) -> list[Any]:
    """Give at most `chunks` parts of equal size along an axis, the last perhaps smaller."""
    if chunks <= 0:
        refuse("chunk", "there is at least one chunk", seen=chunks)
    size = int(x.shape[_own_axis("chunk", axis, x)])
    return split(x, max(-(-size // chunks), 1), axis)


@takes("Tensor x, int axis")
def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """Give the tensor at each place of an axis.

    Raises:
        OutOfRangeError: there is no such axis.
    """
    at = normal_axis("unstack", axis, x.ndim)
    if not x.shape:
        raise OutOfRangeError(
            "a tensor without axes has none to take apart", op="core::unstack", argument="axis"
        )
    return tuple(select(x, at, i) for i in range(int(x.shape[at])))


@takes("Tensor x, int axis")
def unbind(x: Any, axis: int = 0) -> tuple[Any, ...]:
    """Give the tensor at each place of an axis."""
    return unstack(x, axis=axis)


@takes("Tensor x, int axis, Any start, Any length")
def narrow(x: Any, axis: int, start: int, length: int) -> Any:
    """Give `length` elements along an axis, from `start` on; a negative one counts from the end.

    Raises:
        ArgumentError: there are not so many elements, or no axes at all.
    """
    size = x.shape[_own_axis("narrow", axis, x)]
    start, length = (n.item() if isinstance(n, Tensor) else n for n in (start, length))
    first = start + size if _counts_from_the_end(start) else start
    if all(isinstance(n, (int, SymInt)) for n in (first, length, size)):
        message = f"an axis of {size} elements has no {length} from {start} on"
        # Conditions on sizes become guards, and those that only a run can tell are checked there.
        if not all(holds(c, message) for c in (first >= 0, length >= 0, first + length <= size)):
            fix = f"end at {size} at the latest, the size of the axis"
            refuse("narrow", message, argument="length", seen=(start, length), fix=fix)
    return slice_axis(x, axis, first, first + length)


def _counts_from_the_end(start: Any) -> bool:
    """Tell whether a place is negative; one that only a run can tell is not."""
    negative = isinstance(start, (int, SymInt)) and start < 0
    if isinstance(negative, SymBool) and negative.env.is_unbacked(negative.condition):
        return False
    return bool(negative)


# -- other spellings ----------------------------------------------------------


@takes("Tensor x, int[1] source, int[1] destination")
def moveaxis(x: Any, source: Any, destination: Any, /) -> Any:
    """Move one axis, or several, to other places."""
    if isinstance(source, int) and isinstance(destination, int):
        return views.moveaxis(x, source, destination)
    pairs = [[a] if isinstance(a, int) else a for a in (source, destination)]
    return permute_dims(x, moved_order(x.ndim, *pairs))


@takes("Tensor x, int start_axis, int end_axis")
def flatten(x: Any, start_axis: int = 0, end_axis: int = -1) -> Any:
    """Make one axis of several adjacent ones; a view where possible."""
    if not x.ndim:
        return reshape(x, [1])
    first, last = (normal_axis("flatten", axis, x.ndim) for axis in (start_axis, end_axis))
    if first > last:
        refuse("flatten", "the first axis is not behind the last", seen=(start_axis, end_axis))
    shape = x.shape
    return reshape(x, [*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]])


@takes("Tensor x, int axis, SymInt[] sizes")
def unflatten(x: Any, axis: int, sizes: Sequence[int]) -> Any:
    """Make several axes of one."""
    at = _own_axis("unflatten", axis, x)
    if not isinstance(sizes, Sequence):
        refuse("unflatten", "the sizes are a sequence of integers", argument="sizes (position 2)",
               declared="SymInt[]", seen=repr(sizes), fix=f"write ({sizes!r},)")  # fmt: skip
    if -1 in sizes:
        known = -math.prod(sizes)
        if known == 0:
            refuse("unflatten", "a size cannot be found beside a size of 0",
                   argument="sizes (position 2)", declared="no 0 beside a -1",
                   seen=tuple(sizes), fix="write out every size")  # fmt: skip
        sizes = [x.shape[at] // known if n == -1 else n for n in sizes]
    return reshape(x, [*x.shape[:at], *sizes, *x.shape[at + 1 :]])


@takes("Tensor x")
def ravel(x: Any) -> Any:
    """Make one axis of all; a view where possible."""
    return reshape(x, [-1]) if x.size else reshape(x, [0])


@takes("Tensor x")
def transpose(x: Any, axis1: Any, axis2: int | None = None) -> Any:
    """Swap two axes; or put all in an order, as NumPy's function does.

    Raises:
        ArgumentError: there are no such axes, or one is given.
    """
    if axis2 is not None:
        return views.transpose(x, axis1, axis2)
    if not isinstance(axis1, (list, tuple)):
        refuse(
            "transpose",
            "two axes are swapped, or all are put in an order",
            argument="axis2",
            declared="two axes, or a list of all",
            seen=f"{axis1!r} alone",
        )
    return permute_dims(x, axis1)


@takes("Tensor x")
def t(x: Any) -> Any:
    """Transpose a matrix; a tensor of fewer axes stays as it is."""
    if x.ndim > 2:
        refuse("t", "t() takes at most two axes", seen=x.shape, fix="use .mT or permute_dims")
    return views.transpose(x, 0, 1) if x.ndim == 2 else views.alias(x)


@takes("Tensor x")
def expand(x: Any, *sizes: Any) -> Any:
    """Repeat axes of size one without a copy; -1 keeps a size."""
    return broadcast_to(x, sizes_of(sizes))


def sizes_of(sizes: tuple[Any, ...]) -> list[Any]:
    """Read sizes that are given one by one, or as one sequence."""
    if len(sizes) == 1 and sizes[0].__class__ is not int and isinstance(sizes[0], Sequence):
        return list(sizes[0])
    return list(sizes)


def atleast(x: Any, ndim: int) -> Any:
    """Give a tensor of at least `ndim` axes, with new ones in front."""
    while x.ndim < ndim:
        x = expand_dims(x, 0)
    return x
