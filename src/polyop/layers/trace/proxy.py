"""`ProxyMode`: the tracing mode before dispatch (S114, S209).

It meets a call before autograd and decompositions do, so that an operator
that decomposes is one node, and grad mode is part of the program.
"""

from __future__ import annotations

from typing import Any

from polyop.dispatch.context import run_under, set_word, word
from polyop.dispatch.infra_modes import ModeKey
from polyop.dispatch.modes import DispatchMode
from polyop.dispatch.pre_dispatch import with_pre_dispatch
from polyop.graph import GraphModule
from polyop.graph.node import CALL_FUNCTION
from polyop.layers.trace.tracer import Tracer


class ProxyMode(DispatchMode):
    """Records the calls that it meets.

    Args:
        tracer: what keeps the graph.
    """

    mode_key = ModeKey.PROXY

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.grad = word().grad

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call with this mode off, and add its node."""
        given = kwargs or {}
        instead = self.tracer.table.get(op)
        if instead is not None:
            return run_under(with_pre_dispatch(word(), self), instead, *args, **given)
        if types:
            # A graph knows no classes of tensors. What the class does is recorded where it does
            # it: below autograd.
            self.note_grad(word().grad)
            return run_under(word().but(tracer=self.tracer), op, *args, **given)
        result = op(*args, **given)
        self.note_grad(word().grad)
        self.tracer.record(op, args, given, _inside(result))
        return result

    def note_grad(self, grad: bool) -> None:
        """Add a node that sets grad mode, if that is not what it was at the last call."""
        if grad != self.grad:
            self.grad = grad
            self.tracer.graph.create_node(CALL_FUNCTION, set_grad_mode, (grad,))


def _inside(result: Any) -> Any:
    """Give what a functionalization wrapped of a new tensor, which is what the graph knows."""
    level = word().functional
    while level is not None:
        result, level = level.peel(result), level.outer.functional
    return result


def set_grad_mode(grad: bool) -> None:
    """Set grad mode for the nodes that follow; a program ends in the mode in which it began."""
    set_word(word().with_grad if grad else word().without_grad)


#: Passes keep it, though nobody reads what it gives.
set_grad_mode.is_impure = True  # type: ignore[attr-defined]


class PreDispatchModule(GraphModule):
    """A program that may set grad mode; an exception in it leaves the context as it was."""

    def __call__(self, *inputs: Any) -> Any:
        """Run the graph."""
        return run_under(word(), super().__call__, *inputs)
