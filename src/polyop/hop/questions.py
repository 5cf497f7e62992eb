"""What the function of an operator asks, in its trace, of the history of tensors.

Gradients of a call are recorded around its trace, where the function has stand-ins for its
operands. So what it computes has no history in the trace, and in a plain call it may have one:
an answer that is not known to be that of a plain call is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from polyop import tree
from polyop.dispatch.bits import GRAD, WRAPPED
from polyop.dispatch.context import AUTOGRAD, word
from polyop.dispatch.modes import DispatchMode
from polyop.errors import CaptureError
from polyop.hop.forms import inside
from polyop.hop.pullbacks import has_gradient
from polyop.source import caller
from polyop.tensor.tensor import Tensor

#: What gradients make of a tensor, and what a stand-in for an operand has not.
OF_HISTORY = frozenset({"requires_grad", "is_leaf", "grad_fn"})
OF_OPERANDS = frozenset({"grad", "_base", "_version"})


class Unanswered(CaptureError):  # noqa: N818 - users see it as its base
    """The trace of a function cannot know what a plain call of it is told."""


class Asked(Protocol):
    """What this file needs of `SubgraphTracer`, which is built on top of it.

    Attributes:
        op: the operator.
        graded: whether some operand of the call requires grad.
        flagged: whether the inputs say which of them do.
        repeats: whether the function has run before, for a gradient.
    """

    op: str
    graded: bool
    flagged: bool
    repeats: bool

    def is_input(self, tensor: Tensor) -> bool:
        """Tell whether a tensor stands for an operand."""

    def is_tracked(self, tensor: Tensor) -> bool:
        """Tell whether a call of the trace made a tensor."""

    def note_failure(self, error: BaseException) -> None:
        """Keep an error of the trace."""


def refuse_unknown(tracer: Asked, tensor: Tensor, name: str) -> None:
    """Refuse a question that a plain call may answer in another way.

    Raises:
        CaptureError: it may.
    """
    if not knows(tracer, tensor, name):
        error = Unanswered(
            f"the function of {tracer.op} reads .{name} of a tensor, which its trace cannot know",
            op=tracer.op,
            source=caller(),
            fix=f"read .{name} outside of the function, and pass what follows from it",
        )
        tracer.note_failure(error)
        raise error


def refuse_lost(tracer: Any, op: Any, lifted: Sequence[Any]) -> None:
    """Refuse tensors that require grad and are no operands, where gradients are captured too.

    Raises:
        CaptureError: there is one; the call is recorded without a gradient.
    """
    if tracer.whole_calls or tracer.runs_once or not word().grad:
        return  # gradients are found when the program runs
    for x in lifted:
        if isinstance(x, Tensor) and x.keys & GRAD:
            error = CaptureError(
                f"the function of {op} uses a tensor that requires grad and is no operand",
                op=op,
                seen=f"shape {tuple(x.shape)}",
                source=caller(),
                fix="pass it to the function as an operand",
            )
            tracer.note_failure(error)
            raise error


def knows(tracer: Asked, tensor: Tensor, name: str) -> bool:
    """Tell whether the answer of a tensor is that of a plain call."""
    requires = bool(tensor.keys & GRAD)
    while tensor.keys & WRAPPED:
        tensor = inside(tensor)
        requires |= bool(tensor.keys & GRAD)
    given = tracer.is_input(tensor)
    if not given and not tracer.is_tracked(tensor):
        return True
    if name not in OF_HISTORY:
        return not given or name not in OF_OPERANDS or (name == "grad" and not tracer.graded)
    if tracer.repeats and (tracer.graded or (given and name != "requires_grad")):
        return False
    told = name == "requires_grad" and (requires or (given and tracer.flagged))
    if told or not tracer.graded:
        return True
    # Before dispatch gradients are recorded in the trace too, from the operands on.
    return tracer.flagged and not given and not (word().exclude & AUTOGRAD)


class Unrecorded(DispatchMode):
    """Refuses calls whose gradient a plain call records, and that of an operator around does not.

    Args:
        tracer: what records the function of the operator.
    """

    supports_higher_order_operators = True

    def __init__(self, tracer: Asked) -> None:
        self.tracer = tracer

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make a call, and refuse it with grad mode on."""
        out = op(*args, **(kwargs or {}))
        if word().grad and any(map(has_gradient, tree.leaves((args, out)))):
            error = Unanswered(
                f"the function of {self.tracer.op} turns grad mode on, and the call without it "
                "has no gradient in a trace",
                op=self.tracer.op,
                seen=str(op),
                source=caller(),
                fix="call the operator with grad mode on, and turn it off where it is due",
            )
            self.tracer.note_failure(error)
            raise error
        return out


def recorded(tracer: Asked, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Give the function of a call, which refuses what a gradient would miss without grad mode."""
    if not tracer.graded or word().grad or tracer.repeats:
        return fn

    def run(*operands: Any) -> Any:
        with Unrecorded(tracer):
            return fn(*operands)

    return run
