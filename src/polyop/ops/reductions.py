"""Reductions: operators that make one element of all those along some axes.

Kernels call the ufuncs' own `reduce`; `numpy.sum` would add a Python frame.
`spread` is the other direction, and so the gradient of most of them: it puts
one element back at the place of all those that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.ops.axes import (
    HALF,
    SINGLE,
    Axes,
    batch_first,
    call,
    dtype_rule,
    is_half,
    kept_shape,
    names_no_axis,
    normal_axes,
    reduced,
    reduced_in_order,
    reduction_vmap,
    refuse,
    require_elements,
)
from polyop.ops.define import ON_TENSORS, define
from polyop.ops.formulas import Built, column, formula, off_diagonal, rows
from polyop.ops.shapes import normal_axis
from polyop.ops.view_inverses import in_front
from polyop.schema.tags import Tag
from polyop.tensor.meta import Meta, Shape

Fn = Callable[..., Any]
Array = Any


def reduction(
    name: str,
    kernel: Fn,
    grad: str | None,
    *,
    option: str = "",
    fake: Fn | None = None,
) -> Fn:
    """Define a reduction.

    Args:
        name: of the operator.
        kernel: `(x, axis, [option,] keepdims)`, on bare arrays.
        grad: the text of its gradient, or None.
        option: the argument between `axis` and `keepdims`, as a schema has it.
        fake: on metas; otherwise the dtype is asked from the kernel.
    """
    return define(
        f"{name}(Tensor x, *, int[1]? axis=None, {option + ', ' if option else ''}"
        "bool keepdims=False) -> Tensor",
        kernel,
        fake=fake or reduction_fake(name, dtype_rule(kernel)),
        grad=None if grad is None else {"x": grad},
        vmap=reduction_vmap(name),
        tags=(Tag.reduction,),
    )


def reduction_fake(name: str, dtype_of: Fn) -> Fn:
    """Give the fake rule of a reduction; `dtype_of` takes a dtype, and the option if any."""

    def fake(x: Meta, axis: Axes, *rest: Any) -> Meta:
        return reduced(name, x, axis, rest[-1], dtype_of(x.dtype, *rest[:-1]))

    return fake


def folding(name: str, ufunc: np.ufunc) -> Fn:
    """Give the kernel that folds elements with a ufunc, in a dtype if one is given."""
    fold: Fn = ufunc.reduce

    def kernel(
        x: Array, axis: Axes = None, dtype: DType | None = None, keepdims: bool = False
    ) -> Array:
        if (x if dtype is None else dtype).itemsize <= HALF:
            kept = x.dtype if dtype is None else dtype
            if is_half(kept):
                return kernel(x.astype(kept, copy=False), axis, SINGLE, keepdims).astype(kept)
        try:
            return fold(x, axis if axis is None else tuple(axis), dtype, None, keepdims)
        except (ValueError, TypeError) as error:
            if names_no_axis(name, x, axis):
                return fold(x, None, dtype, None, keepdims)
            refuse(name, x, axis, error)

    return kernel


def choosing(name: str, ufunc: np.ufunc) -> Fn:
    """Give the kernel that folds elements with a ufunc that picks one of two."""
    fold: Fn = ufunc.reduce

    def kernel(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
        try:
            return fold(x, axis if axis is None else tuple(axis), None, None, keepdims)
        except (ValueError, TypeError) as error:
            if names_no_axis(name, x, axis):
                return fold(x, None, None, None, keepdims)
            refuse(name, x, axis, error)

    return kernel


sum_kernel = folding("sum", np.add)
prod_kernel = folding("prod", np.multiply)
any_kernel = choosing("any", np.logical_or)
all_kernel = choosing("all", np.logical_and)
max_kernel = choosing("max", np.maximum)
min_kernel = choosing("min", np.minimum)


def count_nonzero_kernel(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """Count the elements that are not zero."""
    return sum_kernel(x != 0, axis, None, keepdims)


# -- gradients ----------------------------------------------------------------


def spread_kernel(
    x: Array,
    shape: Sequence[int],
    axis: Axes = None,
    keepdims: bool = False,
    dtype: DType | None = None,
) -> Array:
    """Repeat each element along the axes that a reduction took away."""
    result = np.empty(shape, x.dtype if dtype is None else dtype)
    if axis is None and result.dtype is x.dtype:
        result[...] = x
        return result
    if x.dtype.kind == "c" != result.dtype.kind:
        x = x.real
    result[...] = x if keepdims else _with_axes(x, result.shape, axis)
    return result


def _with_axes(x: Array, shape: Shape, axis: Axes) -> Array:
    """Put the axes that a reduction took away back, with size 1."""
    if axis is None or not x.shape:
        return x
    return x.reshape(kept_shape(shape, normal_axes("spread", axis, len(shape))))


def spread_fake(x: Meta, shape: Shape, axis: Axes, keepdims: bool, dtype: DType | None) -> Meta:
    """Describe the repeated elements: a new tensor in C order."""
    return x.space.meta(tuple(shape), x.dtype if dtype is None else dtype, None, x.device)


def spread_vmap(
    info: Any, in_dims: Sequence[Any], x: Any, shape: Shape, axis: Axes, *rest: Any
) -> Any:
    """Spread each element of a batch."""
    axes = [a + 1 for a in normal_axes("spread", axis, len(shape))]
    x = batch_first(x, in_dims[0])
    return call("spread", x, [x.shape[0], *shape], axes, *rest), 0


def peaks_kernel(x: Array, top: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """Tell which elements are the greatest (or least): those equal to it, and NaN."""
    top = top if keepdims else _with_axes(top, x.shape, axis)
    return (x == top) | (x != x)  # noqa: PLR0124 - only NaN differs from itself


def peaks_fake(x: Meta, top: Meta, axis: Axes, keepdims: bool) -> Meta:
    """Describe the mask."""
    return reduced("peaks", x, (), True, np.dtype(bool))


def peaks_vmap(info: Any, in_dims: Sequence[Any], x: Any, top: Any, axis: Axes, *rest: Any) -> Any:
    """Compare in each element of a batch, with a greatest element each."""
    ndim = x.ndim - (in_dims[0] is not None)
    keepdims = rest[-1]
    x, top = (batch_first(v, d) for v, d in zip((x, top), in_dims, strict=False))
    axes = normal_axes("peaks", axis, ndim)
    if in_dims[0] is None:
        x = ON_TENSORS["expand_dims"](x, 0)
    if in_dims[1] is None:
        top = ON_TENSORS["expand_dims"](top, 0)
    if not keepdims:
        shape = [top.shape[0], *kept_shape(x.shape[1:], axes)]
        top = ON_TENSORS["reshape"](top, shape)
    if in_dims[0] is None:
        x = ON_TENSORS["broadcast_to"](x, [top.shape[0], *x.shape[1:]])
    return call("peaks", x, top, [a + 1 for a in axes], True), 0


spread = define(
    "spread(Tensor x, SymInt[] shape, int[1]? axis=None, bool keepdims=False, "
    "ScalarType? dtype=None) -> Tensor",
    spread_kernel,
    fake=spread_fake,
    grad={"x": "sum(g, axis=axis, dtype=x.dtype, keepdims=keepdims)"},
    vmap=spread_vmap,
)
peaks = define(
    "peaks(Tensor x, Tensor top, int[1]? axis=None, bool keepdims=False) -> Tensor",
    peaks_kernel,
    fake=peaks_fake,
    vmap=peaks_vmap,
)

# -- the operators ------------------------------------------------------------

#: Elements that tie share the gradient, as those of `torch.amax` do.
SHARED = (
    "spread(g / count_nonzero(peaks(x, r, axis, keepdims), axis=axis, keepdims=keepdims), "
    "x.shape, axis, keepdims, x.dtype) * peaks(x, r, axis, keepdims)"
)


def _extreme(name: str, kernel: Fn) -> Fn:
    def fake(x: Meta, axis: Axes, keepdims: bool) -> Meta:
        require_elements(name, x, axis)
        return reduced(name, x, axis, keepdims, x.dtype)

    return reduction(name, kernel, SHARED, fake=fake)


sum = reduction(
    "sum",
    sum_kernel,
    "spread(g, x.shape, axis, keepdims, x.dtype)",
    option="ScalarType? dtype=None",
)
max = _extreme("max", max_kernel)
min = _extreme("min", min_kernel)
any = reduction("any", any_kernel, None, fake=reduction_fake("any", lambda _: np.dtype(bool)))
all = reduction("all", all_kernel, None, fake=reduction_fake("all", lambda _: np.dtype(bool)))
count_nonzero = reduction("count_nonzero", count_nonzero_kernel, None)


# -- where the greatest is ------------------------------------------------------


def _finder(name: str) -> Fn:
    find = getattr(np.ndarray, name)

    def kernel(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
        try:
            return find(x, axis, keepdims=keepdims)
        except (ValueError, TypeError) as error:
            refuse(name, x, axis, error)

    return kernel


def finder(name: str) -> Fn:
    """Define an operator that gives the index of one element along an axis."""

    def fake(x: Meta, axis: int | None, keepdims: bool) -> Meta:
        axes = None if axis is None else [axis]
        require_elements(name, x, axes)
        return reduced_in_order(name, x, axes, keepdims, np.dtype(np.int64))

    def vmap(info: Any, in_dims: Sequence[Any], x: Any, axis: int | None, keepdims: bool) -> Any:
        x = batch_first(x, in_dims[0])
        if axis is not None and x.ndim == 1:
            normal_axis(name, axis, 0)
            return call(name, ON_TENSORS["expand_dims"](x, 1), 1, False), 0
        if axis is not None:
            return call(name, x, normal_axis(name, axis, x.ndim - 1) + 1, keepdims), 0
        found = call(name, ON_TENSORS["reshape"](x, [x.shape[0], -1]), 1, False)
        ones = [1] * (x.ndim - 1)
        if keepdims and ones:
            found = ON_TENSORS["reshape"](found, [x.shape[0], *ones])
        return found, 0

    return define(
        f"{name}(Tensor x, *, int? axis=None, bool keepdims=False) -> Tensor",
        _finder(name),
        fake=fake,
        vmap=vmap,
        tags=(Tag.reduction,),
    )


argmax = finder("argmax")
argmin = finder("argmin")


# -- products -----------------------------------------------------------------


def prod_others_kernel(x: Array, axis: Axes = None) -> Array:
    """Give, for each element, the product of all others along the axes."""
    return _along_one(x, axis, _others)


def _along_one(x: Array, axis: Axes, fn: Fn, *more: Array) -> Array:
    """Apply a function along one last axis, which stands for all of `axis`."""
    if is_half(x.dtype):
        single = [v.astype(SINGLE) for v in (x, *more)]
        return _along_one(single[0], axis, fn, *single[1:]).astype(x.dtype)
    axes = normal_axes("prod", axis, x.ndim)
    rest = [i for i in range(x.ndim) if i not in axes]
    order = [*rest, *axes]
    moved = [v.transpose(order) for v in (x, *more)]
    shape = moved[0].shape
    lead = shape[: len(rest)]
    n = int(np.prod(shape[len(rest) :], dtype=np.int64))
    result = fn(*[v.reshape((*lead, n)) for v in moved])
    back = result.reshape(shape).transpose(np.argsort(order))
    return back.copy()


def _others(x: Array) -> Array:
    """Multiply what stands before each element with what stands after it."""
    before, after = np.ones_like(x), np.ones_like(x)
    np.multiply.accumulate(x[..., :-1], -1, None, before[..., 1:])
    np.multiply.accumulate(x[..., :0:-1], -1, None, after[..., -2::-1])
    return before * after


def prod_pairs_kernel(given: Array, x: Array, axis: Axes = None) -> Array:
    """Give the gradient of `prod_others`: sums over all products that lack two elements."""
    return _along_one(x, axis, _pairs, given)


def _pairs(x: Array, given: Array) -> Array:
    result = np.empty_like(x)
    for k in range(x.shape[-1]):
        # Each product without k and i: k counts as one, and has no say itself.
        rest, weights = x.copy(), given.copy()
        rest[..., k], weights[..., k] = 1, 0
        result[..., k] = np.add.reduce(weights * _others(rest).conj(), -1)
    return result


@formula
def prod_pairs_bend(of: Built, g: Any, given: Any, x: Any, axis: Axes) -> Any:
    """Give the gradient of `prod_pairs` by the factors."""
    axes = normal_axes("prod", axis, len(x.shape))
    order = [i for i in range(len(x.shape)) if i not in axes] + [*axes]
    shape = [x.shape[i] for i in order]
    lead = shape[: len(shape) - len(axes)]
    g, given, x = (of.reshape(of.permute_dims(v, order), [*lead, -1]) for v in (g, given, x))
    # Row k is all factors, with a one in place k, which has no say itself.
    factors = of.broadcast_to(rows(of, x), [*x.shape, x.shape[-1]])
    ones = of.zero_like(factors) + 1
    factors = off_diagonal(of, factors) + (ones - off_diagonal(of, ones))
    weights = off_diagonal(of, column(of, of.conj(g)) * rows(of, given))
    each = of.prod_pairs(weights, factors, [-1])
    found = of.reshape(of.sum(off_diagonal(of, each), axis=[-2]), shape)
    return of.permute_dims(found, of.inverse_order(order))


def _others_fake(x: Meta, axis: Axes) -> Meta:
    return x.but(strides=None)


def _pairs_fake(given: Meta, x: Meta, axis: Axes) -> Meta:
    return x.but(strides=None)


def _others_vmap(info: Any, in_dims: Sequence[Any], x: Any, axis: Axes) -> Any:
    x = batch_first(x, in_dims[0])
    return prod_others(x, [a + 1 for a in normal_axes("prod", axis, x.ndim - 1)]), 0


def _pairs_vmap(info: Any, in_dims: Sequence[Any], given: Any, x: Any, axis: Axes) -> Any:
    given, x = in_front(info, in_dims[0], given), in_front(info, in_dims[1], x)
    return prod_pairs(given, x, [a + 1 for a in normal_axes("prod", axis, x.ndim - 1)]), 0


prod_others = define(
    "prod_others(Tensor x, int[1]? axis=None) -> Tensor",
    prod_others_kernel,
    fake=_others_fake,
    grad={"x": "prod_pairs(g, x, axis)"},
    vmap=_others_vmap,
)
prod_pairs = define(
    "prod_pairs(Tensor given, Tensor x, int[1]? axis=None) -> Tensor",
    prod_pairs_kernel,
    fake=_pairs_fake,
    grad={"given": "prod_pairs(g, conj(x), axis)", "x": "prod_pairs_bend(g, given, x, axis)"},
    vmap=_pairs_vmap,
)
prod = reduction(
    "prod",
    prod_kernel,
    "spread(g, x.shape, axis, keepdims, r.dtype) * conj(prod_others(kind_of(x, r.dtype), axis))",
    option="ScalarType? dtype=None",
)
