"""The autograd layer: runs a call below itself, and records how its results came to be."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.bits import ANOMALY, GRAD, MODES, NO_GRAD, NUMPY, PACKING, PROBING, SUBCLASS
from polyop.dispatch.keys import AUTOGRAD_KEYS
from polyop.dispatch.operator import Handler
from polyop.dispatch.resolve import Way
from polyop.dispatch.results import tensors_in
from polyop.dispatch.table import Kernel
from polyop.errors import AutogradError
from polyop.layers.autograd.anomaly import noting
from polyop.layers.autograd.author import AuthorRecorder, copied
from polyop.layers.autograd.inplace import writing
from polyop.layers.autograd.node import SUBCLASS_NODES, node_of
from polyop.layers.autograd.packing import packing
from polyop.layers.autograd.plain_author import quick_author
from polyop.layers.autograd.plan import Plan
from polyop.layers.autograd.recorders import FormulaRecorder, Recorder, recorder_of
from polyop.layers.autograd.saved import apart
from polyop.layers.autograd.write import fused
from polyop.schema.tags import Tag

#: More inputs than this, and the branches of a fused forward would double once too often.
MAX_FUSED = 2


class AutogradLayer:
    """Records calls with tensors that require grad."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler that records, or None if there is nothing to record."""
        made = self._handler(way)
        if made is not None and way.code & ANOMALY:
            made = noting(made)
        if made is not None and way.code & PACKING:
            made = packing(made)
        return marking(made) if made is not None and way.code & SUBCLASS else made

    def _handler(self, way: Way) -> Handler | None:
        if not way.code & GRAD or way.code & NO_GRAD:
            return None
        if sum(key in AUTOGRAD_KEYS for key in way.acted) > 1:
            return None  # the same call, seen by the autograd key of another backend
        op = way.op
        if Tag.out in op.tags or Tag.out_variant in op.tags:
            return _refuse_out(way)
        if op._schema.is_mutable:
            return writing(op, way.handler())
        found = recorder_of(op)
        if found is None:
            return None
        kernel = _next_kernel(way)
        made: Handler | None = None
        if kernel is not None and isinstance(found, AuthorRecorder):
            made = quick_author(found, kernel)
        elif kernel is not None and isinstance(found, FormulaRecorder):
            bare = kernel.payload and _fits(found.plan)
            made = fused(found.plan, kernel.fn) if bare and kernel.fn is not None else None
        below = way.handler()
        if way.code & (MODES | SUBCLASS):
            below = _apart(below)
        return made or recording(found, below, plain=_is_plain(way))


def recording(found: Recorder, below: Handler, *, plain: bool) -> Handler:
    """Make the handler that runs a call below and records it."""

    def run(*args: Any) -> Any:
        out = below(*args)
        found.record(args, args, out, out, kept=False, node_of=node_of, plain=plain)
        return out

    def run_on_copies(*args: Any) -> Any:
        out = below(*map(copied, args))
        found.record(args, args, out, out, kept=False, node_of=node_of, plain=plain)
        return out

    if isinstance(found, AuthorRecorder) and found.holds_containers:
        return run_on_copies
    return run


def _apart(handler: Handler) -> Handler:
    def run(*args: Any) -> Any:
        return apart(handler(*args))

    return run


def marking(handler: Handler) -> Handler:
    """Mark the nodes of results that a subclass gave: their gradients are tensors of its own."""

    def run(*args: Any) -> Any:
        out = handler(*args)
        for t in tensors_in(out):
            if t.keys & GRAD:
                SUBCLASS_NODES.add(t.grad_node)
        return out

    return run


def _is_plain(way: Way) -> bool:
    """Tell whether arrays of NumPy require grad, and nobody watches but a probe."""
    return way.code & ~PROBING == NUMPY | GRAD


def _next_kernel(way: Way) -> Kernel | None:
    """Give the kernel that comes next, if all is NumPy and nothing else acts before it."""
    if not _is_plain(way):
        return None
    for i, (_, step) in enumerate(way.steps):
        if isinstance(step, Kernel):
            return None if step.with_keyset or step.takes_op else step
        rest = Way(way.op, way.code, way.keys, way.steps[i + 1 :], way.acted)
        if step.handler(rest) is not None:
            return None
    return None


def _fits(plan: Plan) -> bool:
    """Tell whether the fused forward covers these arguments and results."""
    if plan.forms != (("new", -1),) or len(plan.diff) > MAX_FUSED:
        return False
    if any(plan.shape.kinds[i] != "tensor" for i in plan.diff):
        return False
    if any(text.startswith("Device") for text in plan.shape.types):
        return False  # the result may be no array
    return Tag.pointwise in plan.op.tags or Tag.reduction in plan.op.tags or plan.op.is_builtin


def _refuse_out(way: Way) -> Handler:
    def refuse(*args: Any) -> Any:
        raise AutogradError(
            f"{way.op.name()} writes its result into a given tensor, which has no gradient",
            op=way.op._schema,
            source=way.op.source,
            fix="call the operator that returns a new tensor, or call this one under no_grad",
        )

    return refuse
