"""The forward derivative of a call of control flow: a call on tensors with their tangents.

Each operand that has a tangent is followed by it, each result that may have
one too. So carries, steps and branches stay what they are, and any operator
needs to say only which operands must have one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from polyop.dispatch.context import AUTOGRAD, run_under, word
from polyop.hop.forms import Flat, Form, Group, closed
from polyop.hop.pullbacks import has_gradient
from polyop.layers.autograd.duals import JvpLevel
from polyop.layers.levels import enter_level


def pushed(hop: Any, form: Form, level: JvpLevel) -> Group:
    """Call an operator on a flat form whose tensors have tangents of a level."""
    found: Group = run_under(level.below(), _below, hop, form, level)
    return found


def _below(hop: Any, form: Form, level: JvpLevel) -> Group:
    values = form.given([level.peel(x) for x in form.leaves])
    flags = form.given([level.tangent(x) is not None for x in form.leaves]).groups
    if not any(f for group in flags for f in group):
        plain: Group = level.wrap_all(hop.again(values))
        return plain
    moving = hop.moving(flags, values.groups)
    pairs = zip(form.groups, moving, strict=True)
    groups = tuple(tuple(_laid(group, moves, level)) for group, moves in pairs)
    places = hop.arguments(Form(form.functions, moving, form.options))
    fns = tuple(
        pushforward(fn, moves, alone=i in hop.predicates)  # type: ignore[arg-type]
        for i, (fn, moves) in enumerate(zip(form.functions, places, strict=True))
    )
    out = iter(hop.again(Form(fns, groups, form.options)))
    return tuple(level.wrap(x, next(out)) if has_gradient(x) else level.wrap_all(x) for x in out)


def _laid(group: Sequence[Any], moving: Sequence[bool], level: JvpLevel) -> Iterator[Any]:
    """Lay tangents behind the operands that have them, zeros where one must be there."""
    for x, moves in zip(group, moving, strict=True):
        yield level.peel(x)
        if moves:
            yield level.slope(x)


def pushforward(fn: Flat, moving: Sequence[bool], *, alone: bool = False) -> Flat:
    """Give the function of operands and their tangents, which gives results and theirs.

    Args:
        fn: the function.
        moving: for each operand, whether its tangent follows it.
        alone: give results without tangents.
    """

    def front(*given: Any) -> Group:
        now = word()
        if not now.exclude & AUTOGRAD:
            return inside(*given)
        # The operator may be called below autograd; what its function calls may not.
        above = now.but(grad=False, exclude=now.exclude - AUTOGRAD)
        out: Group = run_under(above, inside, *given)
        return out

    def inside(*given: Any) -> Group:
        rest, level = iter(given), JvpLevel()
        leaves = [level.wrap(next(rest), next(rest)) if m else next(rest) for m in moving]
        level.inputs = leaves
        with enter_level(level):
            out = fn(*leaves)
        return tuple(x for leaf in out for x in _parts(leaf, level, alone=alone))

    return closed(fn.remade(front))


def _parts(leaf: Any, level: JvpLevel, *, alone: bool) -> Iterator[Any]:
    value = level.peel(leaf)
    yield value
    if has_gradient(value) and not alone:
        yield level.slope(leaf)


def all_moving(values: Sequence[Any]) -> tuple[bool, ...]:
    """Tell for each value of a carry whether a tangent follows it: all that may get one."""
    return tuple(map(has_gradient, values))
