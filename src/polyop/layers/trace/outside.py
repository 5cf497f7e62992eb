"""A trace inside a running transform: tensors of levels that were entered before it.

The trace is the innermost transform then, so it sees calls before these levels
do. It works on fakes: an input that belongs to such a level gets a fake of
the shape that it shows, and a tensor that the function closes over becomes a
constant of the program with a fake in its place. The program holds no data of
one run; it computes on whatever is given to it, inside the transform or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import PRE_DISPATCH, TRACE, WRAPPED
from polyop.dispatch.context import word
from polyop.dispatch.operator import Handler
from polyop.dispatch.resolve import Way
from polyop.dispatch.results import tensors_in
from polyop.layers.memory import meet
from polyop.layers.trace.tracer import Tracer
from polyop.tensor.storage import share
from polyop.tensor.tensor import Tensor


def levels_outside(now: Any) -> frozenset[Any]:
    """Give the levels that a trace which begins now is inside of."""
    return frozenset(now.levels) | (now.recorder.outside if now.recorder else frozenset())


def is_outside(value: Any, levels: frozenset[Any]) -> bool:
    """Tell whether a value is a tensor of one of these levels."""
    return isinstance(value, Tensor) and value.keys & WRAPPED != 0 and value.payload.level in levels


def share_as_outside(tensors: Sequence[Any], fakes: Sequence[Any], levels: frozenset[Any]) -> None:
    """Let the fakes of tensors from outside share memory, as these do below their levels."""
    found = [pair for pair in zip(tensors, fakes, strict=True) if is_outside(pair[0], levels)]
    for i, (tensor, fake) in enumerate(found):
        for other, earlier in found[:i]:
            if meet(tensor, other):
                fake.version = share(earlier)


def brought_in(tracer: Tracer, values: Any) -> Any:
    """Put fakes into the places of tensors from outside; their nodes are constants."""
    return tree.map_leaves(
        lambda x: tracer.stand_in(x) if is_outside(x, tracer.outside) else x, values
    )


class OutsideLayer:
    """Lets a trace see a call before the levels that it is inside of."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler, if a trace runs and the call has tensors of levels."""
        if not way.code & (TRACE | PRE_DISPATCH) or not way.code & WRAPPED:
            return None
        op, below = way.op, way.handler()

        def run(*args: Any) -> Any:
            tracer = word().recorder
            if tracer is None or not tracer.outside:
                return below(*args)
            if not any(is_outside(t, tracer.outside) for t in tensors_in(args)):
                return below(*args)
            return dispatch(op, brought_in(tracer, list(args)))

        return run
