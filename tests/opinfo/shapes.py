"""Views, and operators that join, repeat, choose and put, beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.opinfo.pair import pair
from tests.opinfo.reasons import Reason, skip, unless

import polyop as P

Fn = Callable[..., Any]


def method(name: str, *covers: str, ours: str | None = None, **options: Any) -> None:
    """Put a method of our tensors beside PyTorch's operator of that name."""
    called = ours or name.partition("/")[0]
    pair(name, lambda x, *a, **k: getattr(x, called)(*a, **k), *(covers or (called,)), **options)


def _sizes(sizes: Any) -> list[int]:
    return list(sizes[0]) if isinstance(sizes[0], list | tuple) else list(sizes)


def _property(name: str) -> Fn:
    return lambda x: getattr(x, name)


for name in (
    "broadcast_to", "expand", "expand_as", "reshape", "reshape_as", "view", "view_as", "permute",
    "transpose", "t", "squeeze", "squeeze/multiple", "unsqueeze", "flatten",
    "unflatten", "ravel", "diagonal", "flip", "select", "narrow", "split", "split/list_args",
    "chunk", "tile", "repeat", "roll", "tril", "triu", "index_select",
    "masked_select",
):  # fmt: skip
    method(name)
method("movedim", "moveaxis")
method("unbind", "unbind", "unstack")
method("contiguous", "contiguous", "contiguous_copy")
pair("sum_to_size", lambda x, *sizes: x.sum_to(_sizes(sizes)), "sum_to")
method("unsafe_split", "split", ours="split")
method("unsafe_chunk", "chunk", ours="chunk")
method("split_with_sizes", "split", ours="split")
pair("T", _property("T"), "T")
pair("mT", _property("mT"), "matrix_transpose", "mT")
pair("H", lambda x: P.conj(x.t()), "t")
pair("mH", lambda x: P.conj(x.mT), "matrix_transpose")
pair(
    "broadcast_shapes",
    lambda *shapes: P.broadcast_shapes(*[(s,) if isinstance(s, int) else s for s in shapes]),
    "broadcast_shapes",
)
pair("broadcast_tensors", lambda *x: P.broadcast_arrays(*x), "broadcast_arrays")


# -- joined and repeated ------------------------------------------------------------


def _cat(arrays: Any, dim: int = 0, *, axis: int | None = None) -> Any:
    return P.concat(list(arrays), dim if axis is None else axis)


def _grid(*arrays: Any, indexing: str = "ij") -> Any:
    given: Any = arrays[0] if isinstance(arrays[0], list | tuple) else arrays
    return P.meshgrid(*given, indexing=indexing)


def _pad(x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """Spell PyTorch's widths, which begin at the last axis, as pairs for each axis."""
    if min(pad, default=0) < 0:
        skip(Reason.FORM)  # negative widths cut elements off
    pairs = [tuple(pad[i : i + 2]) for i in range(0, len(pad), 2)]
    pairs += [(0, 0)] * (x.ndim - len(pairs))
    return P.pad(x, pairs[::-1], constant_values=value or 0)


def _repeated(x: Any, repeats: Any, dim: int | None = None, *, output_size: Any = None) -> Any:
    return P.repeat(x, repeats, axis=dim)


pair("cat", _cat, "concat")
pair("stack", lambda arrays, dim=0: P.stack(list(arrays), dim), "stack")
pair("hstack", P.hstack)
pair("vstack", P.vstack)
pair("meshgrid/variadic_tensors", _grid, "meshgrid")
pair("meshgrid/list_of_tensors", _grid, "meshgrid")
pair("nn.functional.pad/constant", _pad, "pad")
pair("constant_pad_nd", lambda x, pad, value=0: _pad(x, pad, value=value), "pad")
pair("repeat_interleave", _repeated, "repeat")


# -- parts --------------------------------------------------------------------------

core = P.ops.core


def _slice_scatter(x: Any, part: Any, dim: int = 0, *span: Any, **named: Any) -> Any:
    named |= dict(zip(("start", "end", "step"), span, strict=False))
    start, end, step = named.get("start"), named.get("end"), named.get("step", 1)
    return core.slice_scatter(x, part, dim, start, end, step)


def _slice(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return core.slice(x, dim, start, end, step)


def _index_add(x: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    return P.index_add(x, dim, index, source if alpha == 1 else source * alpha)


def _put(x: Any, dim: int, index: Any, src: Any, *, reduce: Any = None) -> Any:
    unless(reduce, None)
    at = dim % max(x.ndim, 1)
    whole = [n for i, n in enumerate(x.shape) if i != at]
    if not x.ndim or whole != [n for i, n in enumerate(index.shape) if i != at]:
        skip(Reason.FORM)  # indices for a part of the other axes
    return core.put_along_axis(x, index, src, axis=dim)


def _scatter_add(x: Any, dim: int, index: Any, src: Any) -> Any:
    if not x.ndim or not index.ndim:
        skip(Reason.FORM)
    whole = [n for i, n in enumerate(x.shape) if i != dim % x.ndim]
    if whole != [n for i, n in enumerate(index.shape) if i != dim % x.ndim]:
        skip(Reason.FORM)  # indices for a part of the other axes
    part = src[tuple(slice(n) for n in index.shape)]
    return x + core.scatter_along_axis(part, index, list(x.shape), dim)


def _along(x: Any, indices: Any, dim: int | None = None) -> Any:
    return P.take_along_axis(x, indices, axis=dim) if dim is not None else skip(Reason.FORM)


def _gather(x: Any, dim: int, index: Any) -> Any:
    return x.gather(dim, index) if x.ndim == index.ndim else skip(Reason.FORM)


def _take(x: Any, index: Any) -> Any:
    """Take from the flattened elements, as PyTorch's `take` does."""
    return P.take(P.reshape(x, [-1]), index, axis=0)


pair("slice", _slice, "slice")
pair("slice_scatter", _slice_scatter, "slice_scatter")
pair("select_scatter", core.select_scatter, "select_scatter")
pair(
    "diagonal_scatter",
    lambda x, src, offset=0, dim1=0, dim2=1: core.diagonal_scatter(x, src, offset, dim1, dim2),
    "diagonal_scatter",
)
pair("linalg.diagonal", lambda x, *, offset=0, dim1=-2, dim2=-1: (
    P.linalg.diagonal(x, offset=offset)
    if (dim1, dim2) == (-2, -1)
    else P.diagonal(x, offset, dim1, dim2)
), "linalg.diagonal")  # fmt: skip
pair("__getitem__", lambda x, key: x[key], "index", "__getitem__")
pair("index_put", P.index_put, "index_put", writes="index_put_")
pair("index_add", _index_add, "index_add")
pair("index_copy", lambda x, dim, index, source: x.index_copy(dim, index, source), "index_copy")
pair("take", _take, "take")
pair("gather", _gather, "gather", "take_along_axis")
pair("take_along_dim", _along, "take_along_axis")
pair("scatter", _put, "put_along_axis")
pair("scatter_add", _scatter_add, "scatter_along_axis")
pair("argwhere", P.argwhere, skips={"vmap": Reason.DATA_SHAPE})
