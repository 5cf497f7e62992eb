"""What an operator gives in single and half precision: near what it gives in double precision.

Results are compared, what is written, gradients and tangents, on the same numbers. They are
compared only where they are well determined: where moving the arguments a little moves them a
little.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from polyop.checking.inputs import cast
from polyop.checking.law import Case, DoesNotApply, outcome
from polyop.checking.laws.backward import gradient_source
from polyop.checking.laws.forward import fresh, function_of, random_like
from polyop.checking.sample import Array, Sample, array_of
from polyop.checking.slope import Slope, weights, wide
from polyop.errors import GradcheckError, OpCheckError, PolyopError
from polyop.layers.autograd.api import grad
from polyop.layers.autograd.forward_mode import jvp
from polyop.ops.dtypes import finfo
from polyop.tensor.tensor import Tensor, is_differentiable, of_array


class Room(NamedTuple):
    """How far values of a dtype may be from those in double precision.

    Attributes:
        nudge: how far arguments are moved, relative to each.
        steady: how far what is compared may move then, relative to the largest value.
        near: how far it may be off, relative to itself.
        largest: the same, relative to the largest value.
    """

    nudge: float
    steady: float
    near: float
    largest: float


ROOMS = {
    "float32": Room(1e-6, 1e-4, 1e-2, 1e-3),
    "float16": Room(2e-3, 1e-1, 5e-2, 2e-2),
    "bfloat16": Room(1.6e-2, 3e-1, 2e-1, 1e-1),
}
#: Of how many roundings derivatives near one may be made.
ROUNDINGS = 16


class Looked(NamedTuple):
    """What is looked at in a call.

    Attributes:
        arrays: by their names.
        finite: where the results are finite whose derivatives the arrays are.
    """

    arrays: dict[str, Array]
    finite: bytes | None = None


Look = Callable[[Sample], Looked]


class Found(NamedTuple):
    """What differs: its name, what it is near to in float64, and what it is."""

    name: str
    declared: str
    seen: str


def lower_dtypes(case: Case) -> list[str]:
    """Give single precision, and the half precisions of the sample."""
    halves = {t.dtype.name for t in case.sample.tensors()} & ROOMS.keys() - {"float32"}
    return ["float32", *sorted(halves)]


def compare_precisions(case: Case) -> None:
    """Compare a call in lower precision with the call in float64 on the same numbers.

    Raises:
        OpCheckError: results, or what is written, differ by far more than rounding.
    """
    try:
        case.needs_repeats()
    except DoesNotApply:  # two calls differ anyway
        return

    for dtype in lower_dtypes(case):
        found = differing(cast(case.sample, dtype), dtype, values_of(case))
        if found is not None:
            raise value_error(case, found, dtype)


def values_of(case: Case) -> Look:
    """Look at the floating results, and at what is written."""

    def look(sample: Sample) -> Looked:
        leaves = outcome(case, sample.copy())
        tensors = [(name, t) for name, t in leaves if isinstance(t, Tensor)]
        return Looked({n: array_of(t) for n, t in tensors if is_differentiable(t.dtype)})

    return look


def value_error(case: Case, found: Found, where: str) -> OpCheckError:
    """Say which result is another in lower precision."""
    return OpCheckError(
        f"{found.name} of {case.name} has other values for {where} than for float64",
        op=case.op._schema,
        argument=found.name,
        declared=f"near {found.declared}, as for float64",
        seen=f"{found.seen} for {where}",
        source=case.kernel_source,
        fix="compute the same in each precision; if numbers are drawn in the dtype of an "
        "argument, say so: tags=(Tag.nondeterministic_seeded,)",
    )


# -- gradients and tangents ---------------------------------------------------


def compare_gradient_precisions(slope: Slope) -> None:
    """Compare gradients in lower precision with those in float64.

    Raises:
        GradcheckError: one is another.
    """
    look = gradients_at(slope)
    for dtype in lower_dtypes(slope.case):
        found = differing(cast(slope.sample, dtype), dtype, look)
        if found is not None:
            raise gradient_error(slope.case, found, dtype)


def gradients_at(slope: Slope) -> Look:
    """Look at the gradients of the weighted sum."""

    def look(sample: Sample) -> Looked:
        there = Slope(slope.case, sample, slope.targets, 1)
        terms, inputs = there.terms(there.start)
        given = grad(terms, inputs, weights(terms), allow_unused=True)
        names = [slope.name(i) for i in slope.targets]
        pairs = zip(names, given, strict=True)
        return Looked({n: array_of(g) for n, g in pairs if g is not None}, _finite(terms))

    return look


def gradient_error(case: Case, found: Found, where: str) -> PolyopError:
    """Say which gradient is another in lower precision."""
    return GradcheckError(
        f"the gradient of {case.name} for {found.name!r} is another for {where} than for float64",
        op=case.op._schema,
        argument=found.name,
        declared=f"near {found.declared}, as for float64",
        seen=f"{found.seen} for {where} (the backward)",
        source=gradient_source(case),
        fix="compute the same derivative in each precision",
    )


def compare_tangent_precisions(slope: Slope) -> None:
    """Compare forward derivatives in lower precision with those in float64.

    Raises:
        GradcheckError: one is another.
    """
    case = slope.case
    for dtype in lower_dtypes(case):
        found = differing(cast(slope.sample, dtype), dtype, tangents_at(slope))
        if found is not None:
            raise GradcheckError(
                f"the forward derivative of {case.name} is another for {dtype} than for float64",
                op=case.op._schema,
                argument=found.name,
                declared=f"near {found.declared}, as for float64",
                seen=f"{found.seen} for {dtype} (the jvp)",
                source=case.op.rule_source("jvp"),
                fix="compute the same derivative in each precision",
            )


def tangents_at(slope: Slope) -> Look:
    """Look at the tangents of the results, along ones of both signs."""

    def look(sample: Sample) -> Looked:
        there = Slope(slope.case, sample, slope.targets, 1)
        arrays = [there.start[i] for i in slope.targets]
        ways = [np.asarray(np.sign(way), way.dtype) for way in random_like(arrays, 11)]
        results, found = jvp(function_of(there, slope.targets), fresh(arrays), fresh(ways))
        tangents = {f"tangent {k}": array_of(t) for k, t in enumerate(found)}
        return Looked(tangents, _finite(results))

    return look


def _finite(results: Sequence[Tensor]) -> bytes:
    return b"".join([np.isfinite(array_of(t)).tobytes() for t in results])


# -- comparing ----------------------------------------------------------------


def differing(low: Sample, dtype: str, look: Look, first: Look | None = None) -> Found | None:
    """Look at a sample of lower precision, and at the same numbers in float64.

    Args:
        low: the sample.
        dtype: that in which the operator computes then.
        look: what to compare.
        first: how to look at the sample of lower precision, if otherwise.
    """
    room, double = ROOMS[dtype], cast(low, "float64")
    samples = [double, _nudged(double, room.nudge), _nudged(double, -room.nudge)]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            single, runs = (first or look)(low), [look(sample) for sample in samples]
    except Exception:  # what is refused is no silent difference
        return None
    if any(run.finite != single.finite for run in runs):  # what overflows has other weights
        return None
    inputs = 0.0 if single.finite is not None else _largest([array_of(t) for t in double.tensors()])
    count = max([t.numel() for t in low.tensors()], default=1)
    eps = finfo(dtype).eps
    for name, found in single.arrays.items():
        others = [wide(run.arrays[name]) for run in runs if name in run.arrays]
        if len(others) == len(runs) and all(other.shape == found.shape for other in others):
            largest = max(inputs, _largest(others[:1]))
            off = largest * (room.largest + eps * float(count) ** 0.5)
            off += ROUNDINGS * eps if single.finite is not None else 0.0
            place = _far(wide(found), others, room, largest, off)
            if place is not None:
                return Found(name, str(others[0][place]), f"{found[place]} at {list(place)}")
    return None


def _far(
    found: Array, others: Sequence[Array], room: Room, largest: float, off: float
) -> tuple[int, ...] | None:
    """Find an element that is far from what it is in double precision, where that is steady."""
    double, *moved = others
    with np.errstate(all="ignore"):
        unsteady = np.maximum(*[np.abs(double - other) for other in moved])
        steady = unsteady <= room.steady * largest
        far = np.abs(found - double) > room.near * np.abs(double) + off + unsteady
    bad = np.argwhere(far & steady & np.isfinite(found))
    return tuple(int(i) for i in bad[0]) if len(bad) else None


def _nudged(sample: Sample, by: float) -> Sample:
    """Move floating values, each second one to the other side."""

    def moved(t: Tensor) -> Tensor:
        array = array_of(t)
        if array.dtype.kind not in "fc":
            return t
        factor = np.resize([1 + by, 1 - by], array.shape)
        return of_array(np.asarray(array * factor, array.dtype))

    return sample.map(moved)


def _largest(arrays: Sequence[Array]) -> float:
    floating = [a for a in arrays if a.dtype.kind in "fc"]
    known = [np.max(np.abs(a), where=np.isfinite(a), initial=0.0) for a in floating]
    return float(max(known, default=0.0))
