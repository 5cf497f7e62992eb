"""What undoes a view: put a part back into its base.

`*_scatter` gives the base with a part replaced; `*_grad` puts a part into
zeros, as the gradient of a view that leaves elements out. `VIEW_INVERSES` says
for every view how a new value of the view gives a new value of its base, which
is how writes through views are done without writing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from polyop.errors import MutationError
from polyop.ops import view_metas as metas
from polyop.ops import views
from polyop.ops.define import ON_ARRAYS, define
from polyop.ops.shapes import normal_axis
from polyop.ops.views import VIEW_INVERSES, broadcast_to, front, reshape
from polyop.tensor.meta import Meta, Size

Fn = Callable[..., Any]
Array = Any


# -- parts --------------------------------------------------------------------


def _scatter(of_view: Fn) -> Fn:
    def kernel(x: Array, part: Array, *statics: Any) -> Array:
        full = x.copy()
        of_view(full, *statics)[...] = part
        return full

    return kernel


def _into_zeros(of_view: Fn) -> Fn:
    def kernel(part: Array, shape: Sequence[int], *statics: Any) -> Array:
        full = np.zeros(shape, part.dtype)
        of_view(full, *statics)[...] = part
        return full

    return kernel


def _scatter_meta(name: str, of_view: Fn) -> Fn:
    def fake(x: Meta, part: Meta, *statics: Any) -> Meta:
        wanted = of_view(x, *statics).shape
        metas.expanded_shape(part.shape, wanted)
        return x.space.meta(x.shape, x.dtype, None, x.device)

    return fake


def _into_zeros_meta(part: Meta, shape: Sequence[Size], *statics: Any) -> Meta:
    return part.space.meta(tuple(shape), part.dtype, None, part.device)


def in_front(info: Any, axis: int | None, x: Any) -> Any:
    """Give a tensor with the batch in front, repeated if it has none."""
    return broadcast_to(x, [info.batch_size, *x.shape]) if axis is None else front(x, axis)


def _scatter_batched(scatter: Callable[[], Fn], shift: Fn) -> Fn:
    def rule(info: Any, in_dims: Sequence[Any], x: Any, part: Any, *statics: Any) -> Any:
        x, part = in_front(info, in_dims[0], x), in_front(info, in_dims[1], part)
        return scatter()(x, part, *shift(x.ndim - 1, *statics)), 0

    return rule


def _into_zeros_batched(into_zeros: Callable[[], Fn], shift: Fn) -> Fn:
    def rule(info: Any, in_dims: Sequence[Any], part: Any, shape: Any, *statics: Any) -> Any:
        part = front(part, in_dims[0])
        statics = shift(len(shape), *statics)
        return into_zeros()(part, [part.shape[0], *shape], *statics), 0

    return rule


def _define_pair(name: str, signature: str, statics: str, fake: Fn, shift: Fn) -> tuple[Fn, Fn]:
    """Define the two operators that undo a view."""
    of_view = ON_ARRAYS[name]
    scatter: Fn = define(
        f"{name}_scatter(Tensor x, Tensor part, {signature}) -> Tensor",
        _scatter(of_view),
        fake=_scatter_meta(name, fake),
        grad={
            "x": f"{name}_scatter(g, zero_like({name}(g, {statics})), {statics})",
            "part": f"sum_to({name}(g, {statics}), part.shape)",
        },
        vmap=_scatter_batched(lambda: scatter, shift),
    )
    into_zeros: Fn = define(
        f"{name}_grad(Tensor part, SymInt[] shape, {signature}) -> Tensor",
        _into_zeros(of_view),
        fake=_into_zeros_meta,
        grad={"part": f"{name}(g, {statics})"},
        vmap=_into_zeros_batched(lambda: into_zeros, shift),
    )
    return scatter, into_zeros


#: Zeros of one tensor's shape; formulas need it, and `zeros_like` has keyword-only arguments.
zero_like: Fn = define(
    "zero_like(Tensor x) -> Tensor",
    lambda x: np.zeros(x.shape, x.dtype),
    fake=lambda x: x.space.meta(x.shape, x.dtype, None, x.device),
    grad={},
    vmap=views.behind(lambda x, _: zero_like(x)),
)

#: A copy whose elements lie in order; `clone` keeps the order that they have.
contiguous_copy: Fn = define(
    "contiguous_copy(Tensor x) -> Tensor",
    lambda x: x.copy("C"),
    fake=lambda x: x.space.meta(x.shape, x.dtype, None, x.device),
    grad={"x": "g"},
    vmap=views.behind(lambda x, _: contiguous_copy(x)),
)

select_scatter, select_grad = _define_pair(
    "select",
    "int axis, SymInt index",
    "axis, index",
    metas.select_meta,
    lambda n, axis, index: (normal_axis("select", axis, n) + 1, index),
)
slice_scatter, slice_grad = _define_pair(
    "slice",
    "int axis, SymInt? start=None, SymInt? stop=None, int step=1",
    "axis, start, stop, step",
    metas.slice_meta,
    lambda n, axis, *rest: (normal_axis("slice", axis, n) + 1, *rest),
)
diagonal_scatter, diagonal_grad = _define_pair(
    "diagonal",
    "int offset=0, int axis1=0, int axis2=1",
    "offset, axis1, axis2",
    metas.diagonal_meta,
    lambda n, offset, a, b: (offset, *(i + 1 for i in metas.diagonal_axes(n, a, b))),
)


# -- the table ----------------------------------------------------------------


def _reshaped(base: Any, value: Any, *statics: Any) -> Any:
    return reshape(value, list(base.shape))


def _unpermuted(base: Any, value: Any, axes: Sequence[int]) -> Any:
    return views.permute_dims(value, views.inverse_order(axes))


def _itself(base: Any, value: Any, *statics: Any) -> Any:
    return value


def _unrepeated(base: Any, value: Any, *statics: Any) -> Any:
    if 0 in value.shape:  # no element is written
        return base
    raise MutationError(
        "a broadcast tensor cannot be written: several of its elements are one",
        op="core::broadcast_to",
        seen=f"a tensor of shape {tuple(base.shape)} broadcast to {tuple(value.shape)}",
        fix="copy it with .clone() first",
    )


def refuse_repeated(name: str, x: Array) -> NoReturn:
    """Raise the error of a write to an array whose elements are not its own.

    Raises:
        MutationError: always.
    """
    raise MutationError(
        f"core::{name} cannot write a tensor that only repeats others' elements, or is read-only",
        op=f"core::{name}",
        argument="x (position 0)",
        seen=f"shape {x.shape} and strides {x.strides}",
        fix="copy it with .clone() first",
    ) from None


VIEW_INVERSES.update(
    {
        "core::reshape": _reshaped,
        "core::view": _reshaped,
        "core::squeeze": _reshaped,
        "core::expand_dims": _reshaped,
        "core::permute_dims": _unpermuted,
        "core::transpose": lambda _, value, a, b: views.transpose(value, a, b),
        "core::matrix_transpose": lambda _, value: views.matrix_transpose(value),
        "core::moveaxis": lambda _, value, a, b: views.moveaxis(value, b, a),
        "core::flip": lambda _, value, axis: views.flip(value, axis),
        "core::alias": _itself,
        "core::contiguous": _itself,
        "core::detach": _itself,
        "core::select": select_scatter,
        "core::slice": slice_scatter,
        "core::diagonal": diagonal_scatter,
        "core::broadcast_to": _unrepeated,
    }
)
