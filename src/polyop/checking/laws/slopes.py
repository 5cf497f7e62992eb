"""Compares the gradients of a slope with finite differences, and says what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polyop.checking.differences import (
    FEW_ELEMENTS,
    MAX_ELEMENTS,
    Reading,
    directions,
    read,
    rounds,
)
from polyop.checking.law import DoesNotApply
from polyop.checking.laws.backward import gradient_source
from polyop.checking.sample import Array, array_of
from polyop.checking.slope import Slope
from polyop.errors import GradcheckError


def compare(slope: Slope) -> list[str]:
    """Compare the gradients of a slope with finite differences.

    Returns:
        The arguments of which nothing can be compared, because no gradient for them is finite.

    Raises:
        GradcheckError: one differs.
        DoesNotApply: finite differences cannot tell.
    """
    unseen = []
    names = [slope.name(i) for i in slope.targets]
    most = FEW_ELEMENTS if slope.at else MAX_ELEMENTS
    for i, name, told in zip(slope.targets, names, slope.gradients(), strict=True):
        readings = [read(slope, i, told, way) for way in directions(slope.start[i], most)]
        if any(r.wrong for r in readings):
            if rounds(slope, i):
                raise DoesNotApply(
                    "the kernel rounds so coarsely that finite differences say nothing"
                )
            _refuse(slope, name, told, readings)
        if slope.start[i].size and not any(np.isfinite(r.seen) for r in readings):
            unseen.append(name)
    return unseen


def said(slope: Slope, unseen: Sequence[str]) -> str | None:
    """Say of which arguments of the sample nothing was compared.

    Raises:
        DoesNotApply: no result is finite, so nothing was compared at all.
    """
    results = [array_of(t) for t in slope.plain(slope.start)]
    if any(a.size for a in results) and not any(np.isfinite(a).any() for a in results):
        raise DoesNotApply("no result of the sample is finite")
    names = ", ".join(unseen)
    return f"nothing is compared for {names}: no finite gradient" if unseen else None


def _refuse(slope: Slope, name: str, told: Array | None, readings: Sequence[Reading]) -> None:
    case, worst = slope.case, next(r for r in readings if r.wrong)
    which = {1: "gradient", 2: "second gradient"}[slope.order]
    where = f" at {list(worst.place)}" if worst.place else ""
    factor = _factor([r for r in readings if r.place is not None])
    problem, fix = f"the {which} of {case.name} for {name!r} is wrong", _FIX_OTHER
    if told is None:
        problem = f"the {which} of {case.name} for {name!r} is missing"
        fix = _FIX_MISSING[slope.order].format(repr(name))
    elif factor is not None:
        problem += f": every element is {factor:.6g} times what it should be"
        fix = f"divide the gradient for {name!r} by {factor:.6g} in the backward"
    raise GradcheckError(
        problem,
        op=case.op._schema,
        argument=name,
        declared=f"{'no gradient' if told is None else f'{worst.told:.8g}'}{where} (the backward)",
        seen=f"{worst.seen:.8g}{where} (finite differences{', with ' * bool(slope.at)}{slope.at})",
        source=gradient_source(case),
        fix=fix,
    )


_FIX_MISSING = {
    1: "return a gradient for {} from backward, not None",
    2: "compute in backward by operators on what was saved from {}, without .detach() or .numpy()",
}
_FIX_OTHER = "compare the backward with the derivative of the kernel; also what setup_context saves"


def _factor(readings: Sequence[Reading]) -> float | None:
    """Give the factor by which all readings are off, if there is one."""
    ratios = [r.told / r.seen for r in readings if abs(r.seen) > 1e-6]
    if not ratios or abs(ratios[0]) < 1e-9 or abs(ratios[0] - 1) < 1e-3:
        return None
    same = all(abs(ratio - ratios[0]) <= 1e-2 * abs(ratios[0]) for ratio in ratios)
    return ratios[0] if same else None
