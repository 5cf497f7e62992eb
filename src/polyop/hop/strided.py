"""`memory::strided`: the view of a base that a size, strides and an offset name.

Other view operators say how elements are reached; this one says where they
lie. A call on bases needs it for views that are no slices (S171). Sizes,
strides and offset count elements of a base whose elements lie in order: of
any other base they would mean something else, so that is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from polyop.dispatch.library import Library
from polyop.dispatch.registry import find_operator
from polyop.dispatch.rules import (
    register_autograd,
    register_fake,
    register_kernel,
    register_vmap,
)
from polyop.errors import ArgumentError, MutationError
from polyop.ops.creation import from_numpy
from polyop.ops.view_inverses import contiguous_copy, in_front, zero_like
from polyop.ops.views import VIEW_INVERSES, front
from polyop.tensor.meta import normal_strides
from polyop.tensor.tensor import Tensor, of_array, of_meta

LIBRARY = Library("memory", "FRAGMENT")
PLACE = "SymInt[] size, SymInt[] stride, SymInt offset"
LIBRARY.define(f"strided(Tensor(a) x, {PLACE}) -> Tensor(a)")
LIBRARY.define(f"strided_scatter(Tensor x, Tensor part, {PLACE}) -> Tensor")
LIBRARY.define(f"strided_sum(Tensor part, SymInt[] shape, {PLACE}) -> Tensor")


def overlaps(size: Sequence[Any], stride: Sequence[Any]) -> bool:
    """Tell whether two elements of a view may be one element of its base."""
    reach = 0
    axes = [(abs(s), n) for n, s in zip(size, stride, strict=True) if n != 1]
    if any(n == 0 for _, n in axes):
        return False
    for step, count in sorted(axes):
        if step <= reach:
            return True
        reach += step * (count - 1)
    return False


def check_place(x: Tensor, size: Sequence[Any], stride: Sequence[Any], offset: Any) -> None:
    """Refuse a place outside of a base, and a base whose elements do not lie in order.

    Raises:
        ArgumentError: it is one of these.
    """
    if len(size) != len(stride) or any(n < 0 for n in size):
        _refuse("a strided view has a size and a stride for each axis", x, size, stride, offset)
    if not x.is_contiguous():
        _refuse("the elements of the base do not lie in order", x, size, stride, offset)
    if any(n == 0 for n in size):
        return
    steps = [s * (n - 1) for n, s in zip(size, stride, strict=True)]
    first = offset + sum((s for s in steps if s < 0), 0)
    last = offset + sum((s for s in steps if s > 0), 0)
    if first < 0 or not last < math.prod(x.shape):
        _refuse("a strided view reaches out of its base", x, size, stride, offset)


def _refuse(problem: str, x: Tensor, *place: Any) -> None:
    size, stride, offset = place
    raise ArgumentError(
        problem,
        op="memory::strided",
        declared=f"a base of shape {tuple(x.shape)} and strides {tuple(x.stride())}",
        seen=f"size {tuple(size)}, stride {tuple(stride)}, offset {offset}",
        fix="count elements of a contiguous base (x.contiguous())",
    )


def _array(x: Any, size: Sequence[int], stride: Sequence[int], offset: int) -> Any:
    flat = x.reshape(-1)  # of a contiguous array, so it is a view
    steps = [s * flat.itemsize for s in stride]
    return as_strided(flat[offset:], size, steps)


def _fake(x: Tensor, size: Any, stride: Any, offset: Any) -> Tensor:
    check_place(x, size, stride, offset)
    sizes = tuple(size)
    meta = x.payload
    return of_meta(meta.space.meta(sizes, x.dtype, normal_strides(sizes, stride), x.device))


def _kernel(x: Tensor, size: Any, stride: Any, offset: Any) -> Tensor:
    check_place(x, size, stride, offset)
    return of_array(_array(x.numpy(), size, stride, offset))


def _scatter(x: Tensor, part: Tensor, size: Any, stride: Any, offset: Any) -> Tensor:
    refuse_overlap(size, stride)
    check_place(x, size, stride, offset)
    full = x.numpy().copy("C")
    _array(full, size, stride, offset)[...] = part.numpy()
    return from_numpy(full)


def _scatter_fake(x: Tensor, part: Tensor, size: Any, stride: Any, offset: Any) -> Tensor:
    refuse_overlap(size, stride)
    check_place(x, size, stride, offset)
    return zero_like(x)  # type: ignore[no-any-return]


def _sum(part: Tensor, shape: Any, size: Any, stride: Any, offset: Any) -> Tensor:
    full = np.zeros(tuple(shape), part.dtype)
    places = _array(np.arange(full.size), size, stride, offset)
    np.add.at(full.reshape(-1), places.reshape(-1), part.numpy().reshape(-1))
    return from_numpy(full)


def _sum_fake(part: Tensor, shape: Any, *place: Any) -> Tensor:
    meta = part.payload
    return of_meta(meta.space.meta(tuple(shape), part.dtype, None, part.device))


def refuse_overlap(size: Sequence[Any], stride: Sequence[Any]) -> None:
    """Refuse to put values into a view whose elements overlap.

    Raises:
        MutationError: they do, or might.
    """
    if overlaps(size, stride):
        raise MutationError(
            "a view whose elements overlap cannot be put back into its base",
            op="memory::strided_scatter",
            seen=f"size {tuple(size)}, stride {tuple(stride)}",
            fix="copy the view with .clone() before it is written",
        )


_RULES = (
    ("strided", _kernel, _fake),
    ("strided_scatter", _scatter, _scatter_fake),
    ("strided_sum", _sum, _sum_fake),
)
for _name, _run, _describe in _RULES:
    register_kernel(f"memory::{_name}", "cpu", _run, lib=LIBRARY)
    register_fake(f"memory::{_name}", _describe, lib=LIBRARY)
strided = find_operator("memory::strided")
strided_scatter = find_operator("memory::strided_scatter")
strided_sum = find_operator("memory::strided_sum")


# -- gradients ----------------------------------------------------------------


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.shape, ctx.place = tuple(inputs[0].shape), inputs[-3:]


def _strided_back(ctx: Any, g: Any) -> Any:
    return strided_sum(g, list(ctx.shape), *ctx.place), None, None, None


def _scatter_back(ctx: Any, g: Any) -> Any:
    g = contiguous_copy(g)
    part = strided(g, *ctx.place)
    return strided_scatter(g, zero_like(part), *ctx.place), part.clone(), None, None, None


def _sum_back(ctx: Any, g: Any) -> Any:
    return strided(contiguous_copy(g), *ctx.place).clone(), None, None, None, None


for _name, _back in (
    ("strided", _strided_back),
    ("strided_scatter", _scatter_back),
    ("strided_sum", _sum_back),
):
    register_autograd(f"memory::{_name}", _back, setup_context=_keep, lib=LIBRARY)


# -- batches ------------------------------------------------------------------


def _batched(x: Any, size: Any, stride: Any, offset: Any) -> tuple[Any, ...]:
    """Give the place in a base with the batch in front."""
    return [x.shape[0], *size], [math.prod(x.shape[1:]), *stride], offset


def _strided_vmap(info: Any, in_dims: Any, x: Any, *place: Any) -> Any:
    x = front(x, in_dims[0])
    return strided(x, *_batched(x, *place)), 0


def _scatter_vmap(info: Any, in_dims: Any, x: Any, part: Any, *place: Any) -> Any:
    x, part = (in_front(info, d, t) for d, t in zip(in_dims[:2], (x, part), strict=True))
    x = contiguous_copy(x)
    return strided_scatter(x, part, *_batched(x, *place)), 0


def _sum_vmap(info: Any, in_dims: Any, part: Any, shape: Any, *place: Any) -> Any:
    part = front(part, in_dims[0])
    size, stride, offset = place
    whole = [part.shape[0], *shape]
    place = ([part.shape[0], *size], [math.prod(shape), *stride], offset)
    return strided_sum(part, whole, *place), 0


for _name, _rule in (
    ("strided", _strided_vmap),
    ("strided_scatter", _scatter_vmap),
    ("strided_sum", _sum_vmap),
):
    register_vmap(f"memory::{_name}", _rule, lib=LIBRARY)


def _put_back(base: Any, new: Any, *place: Any) -> Any:
    return strided_scatter(base, new, *place)


VIEW_INVERSES["memory::strided"] = _put_back
