"""Views that are taken again: of a gradient, or of a base that was written (S136).

A view keeps its operator, the other arguments, and its way out of what the operator gives: the
number of its result, where there are several, and its item of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.dispatch.bind import dispatch
from polyop.dispatch.body import Number, result_forms
from polyop.dispatch.operator import OpOverload
from polyop.errors import MutationError

#: One operator of a view, its arguments after the base, and the way out of its results.
Step = tuple[OpOverload, tuple[Any, ...]]


def retaken(step: Step, base: Any) -> Any:
    """Take a view again, of another base.

    Raises:
        MutationError: the view does not know which of several results it is.
    """
    op, kept = step
    positions = op.notes.get("positions") or op.note("positions", _positions)
    others = len(op._schema.arguments) - 1
    way = kept[others:]
    number = 0
    if len(positions) > 1:
        if not way or way[0].__class__ is not Number:
            raise MutationError(
                f"a view that {op.name()} gave cannot be taken again: which of the results it is "
                "was not kept",
                op=op._schema,
                source=op.source,
                fix="write to a clone, or give each view by an operator of its own",
            )
        number = way[0]
    i = positions[number]
    if i < 0:
        raise MutationError(
            f"a view that {op.name()} gave cannot be taken again: the schema lets it be one of "
            "several arguments",
            op=op._schema,
            source=op.source,
            fix="write to a clone, or give the views of each argument by an operator of their own",
        )
    out = dispatch(op, [*kept[:i], base, *kept[i:others]])
    for n in way:
        out = out[n]
    return out


def _positions(op: OpOverload) -> tuple[int, ...]:
    """Give for each result the argument that it is a view of."""
    return tuple(position for _, position in result_forms(op._schema))


def take(steps: Sequence[Step], tensor: Any) -> Any:
    """Take a view again by all the steps that lead to it."""
    for step in steps:
        tensor = retaken(step, tensor)
    return tensor
