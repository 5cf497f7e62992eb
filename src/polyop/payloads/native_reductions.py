"""Native kernels that fold axes, and that run along one."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from polyop.ops.axes import SINGLE, is_half, kept_shape, normal_axes
from polyop.ops.pointwise import warn_lost
from polyop.payloads.library import Array
from polyop.payloads.native import NATIVE, Call, Unsupported, native, sizes_known
from polyop.payloads.native_pointwise import real_part, truth_of


def axes_of(x: Array, axis: Any) -> tuple[int, ...] | None:
    """Give the axes as the namespace takes them."""
    if axis is not None and not len(x.shape):
        return None
    return None if axis is None else tuple(axis)


def summed(name: str, call: Call, x: Array) -> Array:
    """Give what is summed, in the result's dtype; imaginary parts are lost with a warning."""
    warn_lost(f"core::{name}", call.dtype_of(x), call.dtype)
    return call.to(real_part(call, x), call.dtype)


def fold(name: str, call: Call, x: Array, axis: Any, dtype: Any, keepdims: bool) -> Array:  # noqa: PLR0917
    """Sum or multiply, in the result's dtype, or in single precision for half."""
    x, axes = summed(name, call, x), axes_of(x, axis)
    if axes == ():
        return call.library.copy(x)
    return _in(call, getattr(call.xp, name), x, axis=axes, keepdims=keepdims)


def _in(call: Call, fold: Any, x: Array, **how: Any) -> Array:
    """Fold in the result's dtype, or in single precision for half."""
    dtype = SINGLE if is_half(call.dtype) else call.dtype
    return fold(x, dtype=call.library.native(dtype), **how)


def extreme(name: str, call: Call, x: Array, axis: Any, keepdims: bool) -> Array:
    """Take the greatest or least."""
    axes = axes_of(x, axis)
    if axes == ():
        return call.library.copy(x)
    if call.library.lazy and 0 in x.shape:
        raise Unsupported  # a block without elements has no greatest
    return getattr(call.xp, name)(x, axis=axes, keepdims=keepdims)


def mean(call: Call, x: Array, axis: Any, keepdims: bool) -> Array:
    """Average in the dtype of the result, or in single precision for half."""
    x, axes = call.to_wide(x), axes_of(x, axis)
    if axes == ():
        return call.library.copy(x)
    if call.library.lazy and 0 in x.shape:
        raise Unsupported  # a block without elements has no average
    return call.xp.mean(x, axis=axes, keepdims=keepdims)


def tests(name: str, call: Call, x: Array, axis: Any, keepdims: bool) -> Array:
    """Look for an element that is not zero, or whether all are."""
    axes = axes_of(x, axis)
    x = truth_of(call, x)
    return x if axes == () else getattr(call.xp, name)(x, axis=axes, keepdims=keepdims)


def finder(name: str, call: Call, x: Array, axis: int | None, keepdims: bool) -> Array:
    """Give the place of the first greatest or least."""
    if not len(x.shape):
        axis = None
    if axis is None and call.library.lazy and len(x.shape) > 1:  # by blocks, another is the first
        flat = call.xp.reshape(x, (-1,))
        return call.xp.reshape(getattr(call.xp, name)(flat, axis=0), call.shape)
    return getattr(call.xp, name)(x, axis=axis, keepdims=keepdims)


def running(name: str, call: Call, x: Array, axis: Any, dtype: Any, initial: bool) -> Array:  # noqa: PLR0917
    """Sum or multiply what stands before each element."""
    if not len(x.shape) or not sizes_known(x):
        raise Unsupported
    x, axis = summed(name, call, x), 0 if axis is None else axis
    return _in(call, getattr(call.xp, name), x, axis=axis, include_initial=initial)


NATIVE.update({f"core::{n}": partial(fold, n) for n in ("sum", "prod")})
NATIVE.update({f"core::{n}": partial(extreme, n) for n in ("max", "min")})
NATIVE.update({f"core::{n}": partial(tests, n) for n in ("any", "all")})
NATIVE.update({f"core::{n}": partial(finder, n) for n in ("argmax", "argmin")})
NATIVE.update({f"core::{n}": partial(running, n) for n in ("cumulative_sum", "cumulative_prod")})
NATIVE["core::mean"] = mean


@native("mean_or_zero")
def mean_or_zero(call: Call, x: Array, axis: Any, keepdims: bool) -> Array:
    """Average, or give zero where there is nothing."""
    if 0 in x.shape:
        return call.full(call.shape, 0)
    return mean(call, x, axis, keepdims)


@native("suffix_sum")
def suffix_sum(call: Call, x: Array, axis: Any, dtype: Any, skip_first: bool) -> Array:
    """Sum from each element to the end."""
    if call.dtype_of(x) != call.dtype or call.dtype.kind in "biu" or not len(x.shape):
        raise Unsupported
    at = (0 if axis is None else axis) % len(x.shape)
    back = _in(call, call.xp.cumulative_sum, call.xp.flip(x, axis=(at,)), axis=at)
    sums = call.xp.flip(back, axis=(at,))
    return call.library.copy(sums[(*(slice(None),) * at, slice(int(skip_first), None), ...)])


@native("sum_to")
def sum_to(call: Call, x: Array, shape: Any) -> Array:
    """Sum the axes that a shape lacks, or has with size one."""
    lead = len(x.shape) - len(shape)
    kept = (*[1] * lead, *shape)
    pairs = zip(kept, x.shape, strict=True)
    axes = tuple([i for i, (k, n) in enumerate(pairs) if (k is not n and k != n) or i < lead])
    if not axes:
        return call.library.copy(x)
    return call.xp.reshape(_in(call, call.xp.sum, x, axis=axes, keepdims=True), call.shape)


@native("peaks")
def peaks(call: Call, x: Array, top: Array, axis: Any, keepdims: bool) -> Array:
    """Tell which elements are the greatest (or least), and which are NaN."""
    if not keepdims and axis is not None and len(top.shape):
        axes = normal_axes("spread", axis, len(x.shape))
        top = call.xp.reshape(top, tuple(kept_shape(tuple(x.shape), axes)))
    same = x == call.to(top, call.dtype_of(x))
    return same if call.dtype_of(x).kind in "biu" else same | call.xp.isnan(x)


# -- products that leave elements out -------------------------------------------------------


@native("prod_others")
def prod_others(call: Call, x: Array, axis: Any) -> Array:
    """Give, for each element, the product of all others along the axes."""
    return _along_one(call, axis, others, call.to_wide(x))


@native("prod_pairs")
def prod_pairs(call: Call, given: Array, x: Array, axis: Any) -> Array:
    """Give the gradient of `prod_others`: sums over all products that lack two elements."""
    return _along_one(call, axis, _pairs, call.to_wide(x), call.to_wide(given))


def _along_one(call: Call, axis: Any, fn: Any, x: Array, *more: Array) -> Array:
    """Apply a function along one last axis, which stands for all of `axis`."""
    xp, n = call.xp, len(x.shape)
    if 0 in x.shape or not n:
        raise Unsupported
    axes = normal_axes("prod", axis, n)
    order = [*[i for i in range(n) if i not in axes], *axes]
    moved = [xp.permute_dims(v, tuple(order)) for v in (x, *more)]
    shape = tuple(moved[0].shape)
    flat = [xp.reshape(v, (*shape[: n - len(axes)], -1)) for v in moved]
    back = tuple(sorted(range(n), key=order.__getitem__))
    return call.library.copy(xp.permute_dims(xp.reshape(fn(call, *flat), shape), back))


def others(call: Call, x: Array) -> Array:
    """Multiply what stands before each element with what stands after it."""

    def before(y: Array) -> Array:
        products = call.xp.cumulative_prod(y, axis=-1, dtype=y.dtype, include_initial=True)
        return products[..., :-1]

    return before(x) * call.xp.flip(before(call.xp.flip(x, axis=(-1,))), axis=(-1,))


def _conj(call: Call, x: Array) -> Array:
    return call.xp.conj(x) if call.dtype_of(x).kind == "c" else x


def _pairs(call: Call, x: Array, given: Array) -> Array:
    sums = []
    for _, rest, weights in _without(call, x, given):
        sums.append(call.xp.sum(weights * _conj(call, others(call, rest)), axis=-1, dtype=x.dtype))
    return call.xp.stack(sums, axis=-1)


def _without(call: Call, x: Array, given: Array) -> Any:
    """Give for each place: it, the elements with one in it, and the weights with zero in it."""
    for k in range(int(x.shape[-1])):
        mask = call.library.from_numpy(np.arange(int(x.shape[-1])) == k, x)
        one, zero = call.number(1, call.dtype), call.number(0, call.dtype)
        yield k, call.xp.where(mask, one, x), call.xp.where(mask, zero, given)


@native("running_prod_grad")
def running_prod_grad(call: Call, given: Array, x: Array, axis: Any, initial: bool) -> Array:
    """Give the gradient of the running product, zeros included: one sum per element."""
    if 0 in x.shape or not len(x.shape) or call.dtype_of(given) != call.dtype_of(x):
        raise Unsupported
    xp, at = call.xp, (0 if axis is None else axis) % len(x.shape)
    given, x = call.to_wide(given), call.to_wide(x)
    given, moved = xp.moveaxis(given, at, -1), xp.moveaxis(x, at, -1)
    given = given[..., 1:] if initial else given
    sums = []
    for k, rest, _ in _without(call, moved, given):
        steps = _conj(call, xp.cumulative_prod(rest, axis=-1, dtype=x.dtype)[..., k:])
        sums.append(xp.sum(given[..., k:] * steps, axis=-1, dtype=x.dtype))
    return call.library.copy(xp.moveaxis(xp.stack(sums, axis=-1), -1, at))
