"""The forward half of the law of gradients: what an author's `jvp` gives is the derivative."""

from __future__ import annotations

import numpy as np

from polyop.checking.sample import array_of, leaves_named
from polyop.checking.slope import FEW_ELEMENTS, Direction, Slope, directions, read, rounds, weights
from polyop.errors import GradcheckError
from polyop.layers.autograd.forward_mode import jvp
from polyop.tensor.tensor import Tensor, is_differentiable, of_array


def compare_forward(slope: Slope) -> None:
    """Compare the forward derivative along directions with finite differences.

    Raises:
        GradcheckError: one differs.
    """
    for i in slope.targets:
        for way in directions(slope.start[i], FEW_ELEMENTS):
            # A gradient that says along this direction what forward mode does.
            size = float(np.sum(np.abs(way.by) ** 2))
            found = read(slope, i, way.by * (_along(slope, i, way) / size), way)
            if found.wrong and not rounds(slope, i):
                _refuse(slope, i, found.told, found.seen)


def _along(slope: Slope, target: int, way: Direction) -> float:
    """Give the derivative of the weighted sum along a direction, by forward mode."""

    def results(moved: Tensor) -> tuple[Tensor, ...]:
        made = [of_array(a.copy()) for a in slope.start]
        made[target] = moved
        out = slope.sample.rebuilt(made).call(slope.case.op)
        leaves = leaves_named(out, len(slope.case.op._schema.returns))
        return tuple(t for _, t in leaves if isinstance(t, Tensor) and is_differentiable(t.dtype))

    primal = of_array(slope.start[target].copy())
    out, slopes = jvp(results, (primal,), (of_array(way.by.copy()),))
    pairs = zip(weights(out), slopes, strict=True)
    return float(sum(np.sum((np.conj(array_of(w)) * array_of(d)).real) for w, d in pairs))


def _refuse(slope: Slope, target: int, told: float, seen: float) -> None:
    op, name = slope.case.op, slope.name(target)
    raise GradcheckError(
        f"the forward derivative of {slope.case.name} for {name!r} is wrong",
        op=op._schema,
        argument=name,
        declared=f"{told:.8g} along a direction (the jvp)",
        seen=f"{seen:.8g} (finite differences)",
        source=op.rule_source("jvp"),
        fix="compare the jvp with the derivative of the kernel; also what setup_context saves",
    )
