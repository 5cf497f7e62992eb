"""What the author's rules are given: they leave it as it is, and do not give it back as their own.

The law of the schema watches the kernel. Here the rules around it are watched in the same way:
those that record a gradient, that run it backward, and that push tangents forward.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from polyop.checking.compare import compare_leaves
from polyop.checking.law import Case
from polyop.checking.laws.backward import gradient_source
from polyop.checking.laws.forward import fresh, function_of, random_like
from polyop.checking.laws.schema import check_sharing
from polyop.checking.sample import Array, array_of, leaves_named
from polyop.checking.slope import Slope, gradients_of
from polyop.errors import MutationError
from polyop.layers.autograd.forward_mode import jvp
from polyop.tensor.tensor import Tensor

#: Each tensor with its name, and its bytes before a rule ran.
Held = list[tuple[str, Tensor, bytes]]


def held(named: Iterable[tuple[str, Any]]) -> Held:
    """Keep what tensors are before a rule runs."""
    return [(name, t, array_of(t).tobytes()) for name, t in named if isinstance(t, Tensor)]


def compare_held(case: Case, before: Held, rule: str, source: Any) -> None:
    """Compare with what they were.

    Raises:
        MutationError: a rule wrote one.
    """
    for name, t, old in before:
        if array_of(t).tobytes() != old:
            raise MutationError(
                f"{rule} of {case.name} writes {name}",
                op=case.op._schema,
                argument=name,
                declared="not written",
                seen="other values after it ran",
                source=source,
                fix="work on a copy (.clone()), and compute without methods that end in _",
            )


def compare_recorded(slope: Slope) -> None:
    """Compare a call that records a gradient with a plain one, and look what backward writes.

    Raises:
        OpCheckError: the results differ.
        MutationError: a rule writes an argument or a result.
        AliasError: a result shares memory, undeclared.
    """
    case, source = slope.case, gradient_source(slope.case)
    count = len(case.op._schema.returns)
    sample, inputs = slope.fresh(slope.start)
    before = held((f"the argument {name!r}", t) for name, t in sample.named())
    leaves = leaves_named(sample.call(case.op), count)
    compare_held(case, before, "a call that records the gradient", source)
    compare_leaves(
        leaves,
        leaves_named(case.run(slope.sample), count),
        (slope.precision.rtol, slope.precision.atol),
        f"{{}} of {case.name} is another where a gradient is recorded",
        op=case.op._schema,
        declared="what the call gives without a gradient",
        source=source,
        fix="in setup_context read inputs and output, and write neither",
    )
    check_sharing(case, sample, leaves, source)
    before += held(leaves)
    terms = [t for _, t in leaves if isinstance(t, Tensor) and t.requires_grad]
    gradients_of(terms, inputs)
    compare_held(case, before, "the backward", source)


def compare_pushed(slope: Slope) -> None:
    """Compare what forward mode is given with what it was.

    Raises:
        MutationError: the jvp writes an argument or a tangent.
    """
    case, names = slope.case, [slope.name(i) for i in slope.targets]
    arrays: list[Array] = [slope.start[i] for i in slope.targets]
    primals, tangents = fresh(arrays), fresh(random_like(arrays, 11))
    before = held((f"the argument {n!r}", t) for n, t in zip(names, primals, strict=True))
    before += held((f"the tangent of {n!r}", t) for n, t in zip(names, tangents, strict=True))
    jvp(function_of(slope, slope.targets), primals, tangents)
    compare_held(case, before, "the jvp", case.op.rule_source("jvp"))


__all__ = ["compare_held", "compare_pushed", "compare_recorded", "held"]
