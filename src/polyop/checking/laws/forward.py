"""The forward half of the law of gradients: what an author's `jvp` gives is the derivative."""

from __future__ import annotations

import numpy as np

from polyop.checking.sample import Array, array_of, leaves_named
from polyop.checking.slope import (
    FEW_ELEMENTS,
    Moves,
    Reading,
    Slope,
    directions,
    reading,
    rounds,
    weights,
)
from polyop.errors import GradcheckError
from polyop.layers.autograd.forward_mode import jvp
from polyop.tensor.tensor import Tensor, is_differentiable, of_array


def compare_forward(slope: Slope) -> None:
    """Compare the forward derivative with finite differences: along each tensor, then along all.

    Raises:
        GradcheckError: one differs.
    """
    together: dict[int, Array] = {}
    for i in slope.targets:
        for way in directions(slope.start[i], FEW_ELEMENTS):
            _compare(slope, {i: way.by})
            together[i] = way.by
    if len(together) > 1:
        _compare(slope, together)


def _compare(slope: Slope, moves: Moves) -> None:
    found = reading(slope, _along(slope, moves), moves)
    if found.wrong and not any(rounds(slope, i) for i in moves):
        _refuse(slope, [slope.name(i) for i in moves], found)


def _along(slope: Slope, moves: Moves) -> float:
    """Give the derivative of the weighted sum along a direction, by forward mode."""

    def results(*moved: Tensor) -> tuple[Tensor, ...]:
        made = [of_array(a.copy()) for a in slope.start]
        for i, t in zip(moves, moved, strict=True):
            made[i] = t
        out = slope.sample.rebuilt(made).call(slope.case.op)
        leaves = leaves_named(out, len(slope.case.op._schema.returns))
        return tuple(t for _, t in leaves if isinstance(t, Tensor) and is_differentiable(t.dtype))

    primals = tuple(of_array(slope.start[i].copy()) for i in moves)
    tangents = tuple(of_array(by.copy()) for by in moves.values())
    out, slopes = jvp(results, primals, tangents)
    pairs = zip(weights(out), slopes, strict=True)
    return float(sum(np.sum((np.conj(array_of(w)) * array_of(d)).real) for w, d in pairs))


def _refuse(slope: Slope, names: list[str], found: Reading) -> None:
    op, named = slope.case.op, " and ".join(map(repr, names))
    raise GradcheckError(
        f"the forward derivative of {slope.case.name} for {named}{' together' * (len(names) > 1)} "
        "is wrong",
        op=op._schema,
        argument=", ".join(names),
        declared=f"{found.told:.8g} along a direction (the jvp)",
        seen=f"{found.seen:.8g} (finite differences)",
        source=op.rule_source("jvp"),
        fix="compare the jvp with the derivative of the kernel; also what setup_context saves",
    )
