"""Native kernels of views, of their inverses, and of joining.

Where memory is shared the results of view kernels share it; elsewhere they are new arrays, and
`Held` knows how to take them again. A range that goes backwards is one that goes forwards, flipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polyop.ops import view_metas as metas
from polyop.ops.axes import kept_shape, normal_axes
from polyop.ops.shapes import normal_axis
from polyop.payloads.library import Array
from polyop.payloads.native import Call, Unsupported, native

WHOLE = slice(None)


# -- shape ----------------------------------------------------------------------


@native("reshape", "view")
def reshape(call: Call, x: Array, shape: Sequence[Any]) -> Array:
    """Give another shape."""
    return call.xp.reshape(x, call.shape)


@native("squeeze")
def squeeze(call: Call, x: Array, axis: Any) -> Array:
    """Take axes of size one away."""
    out = tuple(metas.squeezed_axes(tuple(x.shape), axis))
    return call.xp.squeeze(x, axis=out) if out else x


@native("expand_dims")
def expand_dims(call: Call, x: Array, axis: int) -> Array:
    """Put in an axis of size one."""
    return call.xp.expand_dims(x, axis=normal_axis("expand_dims", axis, len(x.shape) + 1))


@native("broadcast_to")
def broadcast_to(call: Call, x: Array, shape: Any) -> Array:
    """Repeat without copying, where the library can."""
    return call.broadcast(x)


@native("expand_to")
def expand_to(call: Call, x: Array, shape: Any) -> Array:
    """Repeat."""
    return call.library.copy(call.broadcast(x))


@native("permute_dims")
def permute_dims(call: Call, x: Array, axes: Sequence[int]) -> Array:
    """Give the axes another order."""
    return _ordered(call, x, metas.normal_axes("permute_dims", axes, len(x.shape)))


def _ordered(call: Call, x: Array, order: Sequence[int]) -> Array:
    return call.xp.permute_dims(x, tuple(order)) if len(order) > 1 else x


@native("transpose")
def transpose(call: Call, x: Array, axis1: int, axis2: int) -> Array:
    """Exchange two axes."""
    n = len(x.shape)
    order = list(range(n))
    if n:
        a, b = axis1 % n, axis2 % n
        order[a], order[b] = b, a
    return _ordered(call, x, order)


@native("matrix_transpose")
def matrix_transpose(call: Call, x: Array) -> Array:
    """Exchange the last two axes."""
    return transpose(call, x, -1, -2)


@native("moveaxis")
def moveaxis(call: Call, x: Array, source: int, destination: int) -> Array:
    """Move an axis."""
    return _ordered(call, x, metas.moved_order(len(x.shape), [source], [destination]))


@native("alias")
def alias(call: Call, x: Array) -> Array:
    """Give the array itself."""
    return x


@native("contiguous")
def contiguous(call: Call, x: Array) -> Array:
    """Give the array itself, or a copy whose elements lie in order."""
    return call.library.laid_out(x, None)


@native("detach")
def detach(call: Call, x: Array) -> Array:
    """Give the array without gradients, those of its library too."""
    return call.library.detach(x)


# -- parts ------------------------------------------------------------------------


@native("select")
def select(call: Call, x: Array, axis: int, index: Any) -> Array:
    """Take one place of an axis."""
    return x[_at(x, axis, index)]


def _at(x: Array, axis: int, key: Any) -> tuple[Any, ...]:
    n = len(x.shape)
    return (*(WHOLE,) * normal_axis("select", axis, n), key, ...)


def _range(size: Any, start: Any, stop: Any, step: int) -> tuple[slice, bool]:
    """Give a range as one that goes forwards, and whether it is flipped."""
    if step > 0:
        return slice(start, stop, step), False
    places = range(*slice(start, stop, step).indices(int(size)))
    if not places:
        return slice(0, 0, 1), True
    return slice(places[-1], places[0] + 1, -step), True


@native("slice")
def slice_(call: Call, x: Array, axis: int, start: Any, stop: Any, step: int) -> Array:  # noqa: PLR0917
    """Take a range of an axis."""
    axis = normal_axis("slice", axis, len(x.shape))
    part, flipped = _range(x.shape[axis], start, stop, step)
    found = x[_at(x, axis, part)]
    return call.xp.flip(found, axis=(axis,)) if flipped else found


@native("flip")
def flip(call: Call, x: Array, axis: Any) -> Array:
    """Reverse axes."""
    n = len(x.shape)
    axes = tuple(range(n)) if axis is None else tuple(metas.normal_axes("flip", axis, n))
    return call.xp.flip(x, axis=axes) if axes else x


@native("diagonal")
def diagonal(call: Call, x: Array, offset: int, axis1: int, axis2: int) -> Array:
    """Take a diagonal, whose axis comes last."""
    a, b = metas.diagonal_axes(len(x.shape), axis1, axis2)
    rest = [i for i in range(len(x.shape)) if i not in {a, b}]
    return call.xp.linalg.diagonal(_ordered(call, x, [*rest, a, b]), offset=offset)


@native("real_part")
def real_part(call: Call, x: Array) -> Array:
    """Take the real parts."""
    return call.xp.real(x)


@native("imag_part")
def imag_part(call: Call, x: Array) -> Array:
    """Take the imaginary parts."""
    return call.xp.imag(x)


# -- put back ---------------------------------------------------------------------


def _put(call: Call, whole: Array, key: Any, part: Array) -> Array:
    """Replace a part, which is repeated to its place."""
    return call.library.put(whole, key, call.to(part, call.dtype))


@native("select_scatter")
def select_scatter(call: Call, x: Array, part: Array, axis: int, index: Any) -> Array:
    """Replace one place of an axis."""
    return _put(call, x, _at(x, axis, index), part)


@native("select_grad")
def select_grad(call: Call, part: Array, shape: Any, axis: int, index: Any) -> Array:
    """Put one place of an axis into zeros."""
    return select_scatter(call, call.full(shape, 0), part, axis, index)


@native("slice_scatter")
def slice_scatter(  # noqa: PLR0917
    call: Call, x: Array, part: Array, axis: int, start: Any, stop: Any, step: int
) -> Array:
    """Replace a range of an axis."""
    axis = normal_axis("slice", axis, len(x.shape))
    where, flipped = _range(x.shape[axis], start, stop, step)
    if flipped and (behind := len(x.shape) - axis) <= len(part.shape):
        part = call.xp.flip(part, axis=(len(part.shape) - behind,))
    return _put(call, x, _at(x, axis, where), part)


@native("slice_grad")
def slice_grad(  # noqa: PLR0917
    call: Call, part: Array, shape: Any, axis: int, start: Any, stop: Any, step: int
) -> Array:
    """Put a range of an axis into zeros."""
    return slice_scatter(call, call.full(shape, 0), part, axis, start, stop, step)


@native("diagonal_scatter")
def diagonal_scatter(  # noqa: PLR0917
    call: Call, x: Array, part: Array, offset: int, axis1: int, axis2: int
) -> Array:
    """Replace a diagonal."""
    n = len(x.shape)
    a, b = metas.diagonal_axes(n, axis1, axis2)
    rest = [i for i in range(n) if i not in {a, b}]
    size = max(min(x.shape[a] + min(offset, 0), x.shape[b] - max(offset, 0)), 0)
    places = np.arange(size)
    key = tuple(
        call.library.from_numpy(p, call.like)
        for p in (places - min(offset, 0), places + max(offset, 0))
    )
    part = call.broadcast(part, (*[x.shape[i] for i in rest], size))
    front = _ordered(call, part, [len(rest), *range(len(rest))])
    done = _put(call, _ordered(call, x, [a, b, *rest]), key, front)
    return _ordered(call, done, [int(i) for i in np.argsort([a, b, *rest])])


@native("diagonal_grad")
def diagonal_grad(  # noqa: PLR0917
    call: Call, part: Array, shape: Any, offset: int, axis1: int, axis2: int
) -> Array:
    """Put a diagonal into zeros."""
    return diagonal_scatter(call, call.full(shape, 0), part, offset, axis1, axis2)


@native("pad")
def pad(call: Call, x: Array, before: Any, after: Any, value: Any) -> Array:
    """Put a number around."""
    if call.dtype.kind in "iub" and value.__class__ not in {int, bool}:
        raise Unsupported
    key = tuple(slice(b, b + n) for b, n in zip(before, x.shape, strict=True))
    return call.library.put(call.full(call.shape, value), key, x)


# -- joining ------------------------------------------------------------------------


@native("concat")
def concat(call: Call, arrays: Sequence[Array], axis: int | None) -> Array:
    """Join along an axis."""
    given = [call.to(a, call.dtype) for a in arrays]
    if axis is None:
        given = [call.xp.reshape(a, (-1,)) for a in given]
    return call.library.copy(call.function("concat")(given, axis=axis or 0))


@native("stack")
def stack(call: Call, arrays: Sequence[Array], axis: int) -> Array:
    """Join along a new axis."""
    return call.xp.stack([call.to(a, call.dtype) for a in arrays], axis=axis)


@native("tril")
def tril(call: Call, x: Array, k: int) -> Array:
    """Keep what is on and under a diagonal."""
    return call.xp.tril(x, k=k)


@native("triu")
def triu(call: Call, x: Array, k: int) -> Array:
    """Keep what is on and over a diagonal."""
    return call.xp.triu(x, k=k)


@native("spread")
def spread(  # noqa: PLR0917
    call: Call, x: Array, shape: Any, axis: Any, keepdims: bool, dtype: Any
) -> Array:
    """Repeat each element along the axes that a reduction took away."""
    if call.dtype_of(x).kind == "c" != call.dtype.kind:
        x = call.xp.real(x)
    x = call.to(x, call.dtype)
    if axis is not None and not keepdims and len(x.shape):
        axes = normal_axes("spread", axis, len(shape))
        x = call.xp.reshape(x, tuple(kept_shape(tuple(shape), axes)))
    return call.library.copy(call.broadcast(x))


@native("batch_numbers")
def batch_numbers(call: Call, some: Array, count: Any, rank: int) -> Array:
    """Give each element of a batch its number."""
    numbers = np.arange(int(count)).reshape(int(count), *[1] * rank)
    return call.library.from_numpy(numbers, call.like)
