"""Operators that are made of others: to PyTorch too, which so knows each of their parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from polyop.bridges.calls import AT_KERNEL, COMPOSITE
from polyop.bridges.torch.anew import met
from polyop.bridges.torch.arrays import our_values
from polyop.bridges.torch.draws import is_random
from polyop.bridges.torch.kernel import check, chosen, filled
from polyop.bridges.torch.schema import Translation
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.library_kernels import has_kernels
from polyop.dispatch.operator import OpOverload
from polyop.errors import UsageError
from polyop.layers.payloads import call_held


def is_made_of_parts(op: OpOverload) -> bool:
    """Tell whether all that is known of an operator is what it is made of."""
    other = op._schema.is_mutable or is_random(op) or has_kernels(op, "torch")
    return not other and set(op.slots()) == {COMPOSITE.name}


class Parts:
    """Runs what an operator is made of, on PyTorch's tensors: data, fakes, or of a transform."""

    def __init__(self, op: OpOverload, plan: Translation) -> None:
        self.op = op
        self.plan = plan

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run it; PyTorch records each part."""
        met(self.op)
        if not is_made_of_parts(self.op):
            _refuse_more(self.op)
        values = filled(self.plan, args, named)
        check(self.op, self.plan, values)
        return chosen(self.plan.forms, self.run(values), lambda t: t)

    def run(self, values: Sequence[Any]) -> Any:
        """Give the results of our schema."""
        token = AT_KERNEL.set(self.op)  # a kernel that has come since is no call of PyTorch's
        try:
            return run_under(PLAIN, call_held, self.op, our_values(self.plan, values))
        finally:
            AT_KERNEL.reset(token)


def _refuse_more(op: OpOverload) -> NoReturn:
    """Refuse what PyTorch cannot be told after it has met an operator.

    Raises:
        UsageError: always.
    """
    raise UsageError(
        f"{op.name()} was nothing but its parts when PyTorch met it, and has another kernel or "
        "rule since",
        op=op._schema,
        declared=COMPOSITE.name,
        seen=", ".join(op.slots()),
        source=op.source,
        fix="register all kernels and rules before the first call in PyTorch; or define it anew",
    )
