"""The law of decompositions: what an operator is made of computes what its kernel computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyop.checking.compare import compare_leaves
from polyop.checking.law import Case, DoesNotApply, law
from polyop.checking.sample import leaves_named
from polyop.dispatch.context import run_under, word
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.results import answer_of


@law("test_decomposition", "A decomposition computes what the kernel computes.")
def decomposition_law(case: Case) -> None:
    """Run the kernel, and the decomposition, on copies of the sample."""
    composed = _composed(case)
    if case.op._schema.is_mutable:
        raise DoesNotApply("the operator writes its arguments")
    case.needs_repeats()
    count = len(case.op._schema.returns)
    quiet = word().without_grad
    sample = case.sample.copy()
    given = answer_of(case.op, run_under(quiet, sample.call, composed), sample.values)
    compare_leaves(
        leaves_named(given, count),
        leaves_named(run_under(quiet, case.run), count),
        case.tolerance,
        f"{{}} of the decomposition of {case.name} differs from the kernel's",
        op=case.op._schema,
        declared="what the kernel gives",
        source=_source(case),
        fix="compare the two: gradients, batches and compiled code use the decomposition",
    )


def _composed(case: Case) -> Callable[..., Any]:
    """Give the decomposition, where there is a kernel beside it.

    Raises:
        DoesNotApply: there is none.
    """
    op = case.op
    found: Callable[..., Any] | None = op.rule("decomposition")
    if found is not None:
        return found
    kernel = op.places.top(DispatchKey.CompositeImplicitAutograd)
    if kernel is None or kernel.fn is None or set(op.kernels()) == {_COMPOSITE}:
        raise DoesNotApply("the operator has no decomposition beside a kernel")
    return kernel.fn


_COMPOSITE = DispatchKey.CompositeImplicitAutograd


def _source(case: Case) -> Any:
    slot = "decomposition" if case.op.rule("decomposition") is not None else _COMPOSITE
    return case.op.rule_source(slot)
