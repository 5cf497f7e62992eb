"""Which way each operator is batched, and how calls with batched tensors get there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.dispatch.bits import BATCHED
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.resolve import Way
from polyop.dispatch.results import answer_of
from polyop.layers.levels import FAST, general
from polyop.layers.vmap.batch import PLANS, Plan, VmapLevel
from polyop.layers.vmap.loop import run_loop
from polyop.layers.vmap.pointwise import fast_pointwise, run_pointwise
from polyop.layers.vmap.randomness import is_random, run_random
from polyop.layers.vmap.rules import run_rule
from polyop.layers.vmap.writes import (
    run_pointwise_write,
    run_twin_write,
    run_written_loop,
    run_written_rule,
)
from polyop.ops.inplace import INPLACE_TWINS
from polyop.schema.tags import Tag
from polyop.schema.types import leaf_kind


def choose(op: OpOverload) -> Plan:
    """Choose the way in which an operator is batched (S157)."""
    if is_random(op):
        return run_random
    if op._schema.is_mutable:
        return _choose_written(op)
    if op.rule("vmap") is not None:
        return run_rule
    if op._can_decompose():
        return run_composite
    if _lines_up(op):
        return run_pointwise
    return run_loop if op.rule("decomposition") is None else run_decomposed


def _lines_up(op: OpOverload) -> bool:
    """Tell whether it is pointwise, without lists, and with single tensors as results."""
    lists = any(leaf_kind(a.type) in _NESTED for a in op._schema.arguments)
    results = all(str(r.type) == "Tensor" for r in op._schema.returns)
    return Tag.pointwise in op.tags and results and not lists


_NESTED = {"tensor[]", "tensor?[]", "tree"}


def _choose_written(op: OpOverload) -> Plan:
    if op.rule("vmap") is not None:
        return run_written_rule
    if op._can_decompose():
        return run_composite
    pointwise = Tag.pointwise in op.tags and sum(a.is_write for a in op._schema.arguments) == 1
    if pointwise:
        return run_pointwise_write
    return run_twin_write if op.name() in INPLACE_TWINS else run_written_loop


def run_composite(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    """Run the composition on the batched tensors; what it calls has rules of its own."""
    n = len(op._schema.positional)
    names = [a.name for a in op._schema.keyword_only]
    return op.decompose(*args[:n], **dict(zip(names, args[n:], strict=True)))


def run_decomposed(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    """Run what the author says that the operator is made of, on the batched tensors."""
    n = len(op._schema.positional)
    names = [a.name for a in op._schema.keyword_only]
    given = op.rule("decomposition")(*args[:n], **dict(zip(names, args[n:], strict=True)))
    return answer_of(op, given, args)


def fast(way: Way) -> Handler | None:
    """Make the handler of a call whose wrapped tensors are all batched."""
    return fast_pointwise(way.op, general(way.op)) if choose(way.op) is run_pointwise else None


PLANS.append(choose)
FAST[BATCHED] = fast
