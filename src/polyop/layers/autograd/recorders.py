"""How calls of an operator are recorded, decided once per operator from its rules.

A recorder gives results their history. The same one serves plain autograd,
where results are what came from below, and the levels of `func.grad`, where
they are wrappers around it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from polyop.dispatch.bits import GRAD
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.rules import AutogradRule
from polyop.errors import MissingGradientError, PolyopWarning, UsageError, nearest
from polyop.layers.autograd.author import (
    RUNNING,
    AuthorRecorder,
    flatten_results,
    give_node,
    new_among,
    own_history,
)
from polyop.layers.autograd.mirror import NodeOf, nodes_in, spec_of
from polyop.layers.autograd.node import Node, next_seq
from polyop.layers.autograd.plan import Plan
from polyop.layers.autograd.write import facts, recorder
from polyop.lazy import load
from polyop.schema.types import holds_tensor
from polyop.source import Source
from polyop.tensor.tensor import is_differentiable


class Recorder(Protocol):
    """What gives results their history; see `AuthorRecorder.record`."""

    def record(
        self,
        outer: Sequence[Any],
        values: Sequence[Any],
        out: Any,
        results: Any,
        *,
        kept: bool,
        node_of: NodeOf,
        plain: bool,
    ) -> None:
        """Record a call."""


def recorder_of(op: OpOverload) -> Recorder | None:
    """Give the recorder of an operator, or None if no gradient flows through it."""
    try:
        found: Recorder | None = op.notes["autograd"]
    except KeyError:
        found = op.note("autograd", _recorder_of)
    return found


def _recorder_of(op: OpOverload) -> Recorder | None:
    through = op.places.top(DispatchKey.Autograd)
    if through is not None and through.fallthrough and not op._schema.is_mutable:
        return None  # no call is recorded (S93)
    rule: AutogradRule | None = op.rule("backward")
    if rule is not None:
        return None if rule.backward is None else AuthorRecorder(op, rule)
    formula = op.rule("formula")
    if formula is not None:
        return FormulaRecorder(Plan(op, formula.text)) if any(formula.text.values()) else None
    if not any(holds_tensor(r.type) for r in op._schema.returns):
        return None
    composed = op.rule("decomposition")
    if composed is not None and not op._schema.is_mutable:
        rule = load("polyop.layers.autograd.derived:derived_rule")(op, composed)
        return AuthorRecorder(op, rule)
    return MissingRecorder(op)


class FormulaRecorder:
    """Records calls of an operator whose gradients are text."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def record(
        self,
        outer: Sequence[Any],
        values: Sequence[Any],
        out: Any,
        results: Any,
        *,
        kept: bool,
        node_of: NodeOf,
        plain: bool,
    ) -> None:
        """Record a call."""
        plan = self.plan
        if plan.single and not is_differentiable(results.payload.dtype):
            return
        nodes = {i: _nodes(outer[i], node_of) for i in plan.diff}
        needs = tuple(i for i in plan.diff if nodes[i] is not None)
        if not needs:
            return
        given = out if out.__class__ in {tuple, list} else (out,)
        flat = results if results.__class__ in {tuple, list} else (results,)
        write = recorder(plan, needs, quick=plain)
        node = write(values, nodes, flat, given if kept else None)
        if plan.single:
            results.keys |= GRAD
            results.grad_node = node
        else:
            give_node(node, [*flat, None], [*flat, None])


def _nodes(value: Any, node_of: NodeOf) -> Any:
    if value is None:
        return None
    if value.__class__ is list:
        nodes = tuple(None if x is None else node_of(x) for x in value)
        return nodes if any(nodes) else None
    return node_of(value)


# -- without a gradient -------------------------------------------------------

_MODES = ("backward", "warn", "error", "nothing")


class Fallback:
    """What a call of an operator without a gradient means (S129)."""

    mode = "backward"


def set_autograd_fallback(mode: str) -> None:
    """Say what a call of an operator without a gradient means.

    Args:
        mode: `"backward"` raises when a gradient is asked for, `"warn"` warns in
            forward too, `"error"` raises in forward, `"nothing"` gives results
            that do not require grad.

    Raises:
        UsageError: for another mode.
    """
    if mode not in _MODES:
        raise UsageError(
            f"no autograd fallback {mode!r}{nearest(mode, _MODES)}",
            declared=", ".join(_MODES),
            seen=repr(mode),
        )
    Fallback.mode = mode


class MissingRecorder:
    """Lets a call pass, and raises when its gradient is asked for."""

    def __init__(self, op: OpOverload) -> None:
        self.op = op

    def record(
        self,
        outer: Sequence[Any],
        values: Sequence[Any],
        out: Any,
        results: Any,
        *,
        kept: bool,
        node_of: NodeOf,
        plain: bool,
    ) -> None:
        """Record a call that has no gradient."""
        flat = flatten_results(results)[0]
        tensors = [t for t in flat if hasattr(t, "keys") and is_differentiable(t.payload.dtype)]
        nodes = tuple(node for a in outer for node in nodes_in(spec_of(a, node_of)))
        if Fallback.mode == "nothing" or not tensors or not nodes:
            return
        if Fallback.mode == "error":
            missing_gradient(self.op, None)
        if Fallback.mode == "warn":
            warnings.warn(_text(self.op), PolyopWarning, stacklevel=3)
        node = Node()
        node.backward = missing_backward
        node.op = self.op
        node.seq = next_seq()
        node.n0 = nodes
        node.s0 = RUNNING.get()
        node.more = ([facts(t) for t in flat], None)
        if not self.op._schema.is_mutable:
            own_history(new_among(self.op, results))
        give_node(node, flat, flat)


def missing_backward(
    node: Node, g: Any, grads: dict[Node, Any], push: Callable[[Node], Any]
) -> None:
    """Raise: the operator has no gradient."""
    missing_gradient(node.op, node.s0)


missing_backward.tensor = missing_backward  # type: ignore[attr-defined]


def _text(op: OpOverload) -> str:
    return f"{op.name()} has no gradient, and a tensor that requires grad goes through it"


def missing_gradient(op: OpOverload, caller: Any = None) -> NoReturn:
    """Raise the error of an operator without a gradient.

    Args:
        op: the operator.
        caller: the operator in whose backward it was called, if any.
    """
    by = f"; the backward of {getattr(caller, 'name', lambda: caller)()} called it"
    problem = f"{op.name()} has no backward rule{by if caller is not None else ''}"
    problem += f" (it has: {', '.join(sorted(set(op.slots()))) or 'none'})"
    where: Source = op.source
    fix = (
        f"add one with polyop.library.register_autograd({op.name()!r}, backward), "
        f"or say that there is none: register_autograd({op.name()!r}, None)"
    )
    if op._schema.is_mutable:  # which takes no rule (S131)
        fix = "call an operator that gives the new value, which can have one; or write in no_grad()"
    op.missing("backward", MissingGradientError, problem=problem, source=where, fix=fix)
