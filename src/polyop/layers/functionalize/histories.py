"""`memory::with_history`: the values of one tensor, with the history of another.

A write under `no_grad`, or through a detached view, changes what a tensor
holds, and not how gradients flow to it. Where writes are replaced by new
values, the new value is this: its gradient is that of the former value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.dispatch.bits import GRAD, LIFTED
from polyop.dispatch.context import run_under, word
from polyop.dispatch.library import Library
from polyop.dispatch.registry import find_operator
from polyop.dispatch.rules import register_autograd, register_jvp, register_vmap
from polyop.ops.rounding import clone
from polyop.ops.view_inverses import in_front
from polyop.tensor.tensor import Tensor

LIBRARY = Library("memory", "FRAGMENT")
LIBRARY.define("with_history(Tensor x, Tensor values, bool tangent) -> Tensor")
NAME = "memory::with_history"


def _values(x: Tensor, values: Tensor, tangent: bool) -> Tensor:
    made: Tensor = clone(values)
    return made


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.tangent = inputs[2]


def _back(ctx: Any, g: Any) -> Any:
    return g, None, None


def _jvp(ctx: Any, x: Any, values: Any, tangent: Any) -> Any:
    return x if ctx.tangent else values


def _batched(info: Any, in_dims: Sequence[Any], x: Tensor, values: Tensor, tangent: bool) -> Any:
    x, values = in_front(info, in_dims[0], x), in_front(info, in_dims[1], values)
    return with_history(x, values, tangent), 0


LIBRARY.impl("with_history", _values, "CompositeExplicitAutograd")
register_autograd(NAME, _back, setup_context=_setup, lib=LIBRARY)
register_jvp(NAME, _jvp, lib=LIBRARY)
register_vmap(NAME, _batched, lib=LIBRARY)
with_history = find_operator(NAME)


def keep(former: Tensor, values: Tensor, *, tangent: bool) -> Tensor:
    """Give values with the history of a former value, if it has one.

    Args:
        former: of the same shape and dtype.
        values: new ones, without history.
        tangent: whether a forward derivative is the former one, too.
    """
    if not has_history(former):
        return values
    made: Tensor = run_under(word().with_grad, with_history, former, values, tangent)
    return made


def has_history(tensor: Tensor) -> bool:
    """Tell whether a derivative that runs, or autograd, may follow a tensor."""
    inside: Any = tensor
    while isinstance(inside, Tensor):
        if inside.keys & (GRAD | LIFTED):
            return True
        inside = getattr(inside.payload, "value", None)
        inside = inside() if callable(inside) else inside
    return False
