"""PyTorch's kernel for autograd, for operators that take lists in which None may stand.

The kernel that `torch.library.register_autograd` makes takes a list that holds a None for a
constant: its tensors would get no gradient, in silence. Here the tensors of all arguments go in a
row, as eager calls have them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from polyop.bridges.torch.arrays import Call, split
from polyop.bridges.torch.gradient import backward, setup
from polyop.bridges.torch.kernel import filled, tensors_in
from polyop.bridges.torch.schema import Translation
from polyop.bridges.torch.watch import QUICK

Asks = Callable[..., bool]
#: The kinds of arguments that may be such lists.
_LISTS = frozenset(("tensor?[]", "tree"))
_after: Any = getattr(torch._C, "_after_autograd_keyset", None)


def has_lists(plan: Translation) -> bool:
    """Tell whether an argument may be a list that holds a None."""
    return any(p.kind in _LISTS for p in plan.places)


def asks(plan: Translation) -> Asks | None:
    """Give what tells whether a gradient is asked for of any argument; None if nothing can."""
    return _any_requires_grad if has_lists(plan) else getattr(torch._C, "_any_requires_grad", None)


def _any_requires_grad(*args: Any) -> bool:
    return any(t.requires_grad for t in tensors_in(args))


class Listed(torch.autograd.Function):
    """Calls what is below autograd."""

    @staticmethod
    def forward(ctx: Any, call: Call, *row: Any) -> Any:
        """Run the operator, and keep what the gradient needs."""
        with QUICK.below():
            outs = call.run(row)
            setup(ctx, call, row, outs, ctx.needs_input_grad[1:])
        return outs

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Run the author's backward."""
        return (None, *backward(ctx, ctx.needs_input_grad[1:], grads))


_listed: Any = Listed.apply


def listed(bridge: Any) -> Callable[..., Any] | None:
    """Give the kernel for autograd; None where PyTorch's own does, or its names are gone.

    Args:
        bridge: of the operator.
    """
    redispatch = getattr(bridge.target, "redispatch", None)
    if not has_lists(bridge.plan) or _after is None or redispatch is None:
        return None

    def recorded(keyset: Any, *args: Any, **named: Any) -> Any:
        values = filled(bridge.plan, args, named)
        row, kept = split(bridge.plan, values)
        call = Call(bridge.op, bridge.plan, partial(redispatch, keyset & _after), kept)
        call.single = bridge.target
        if torch.is_grad_enabled() and any(t.requires_grad for t in row):
            return call.answer(_listed(call, *row))
        with QUICK.below():
            return call.target(*values)

    return recorded
