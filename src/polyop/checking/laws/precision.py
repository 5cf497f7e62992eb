"""The values that a kernel gives in single precision: near those in double precision.

Values are compared only where they are well determined: where moving the arguments a little moves
the results a little.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.checking.derived import attempt
from polyop.checking.inputs import cast
from polyop.checking.law import Case, DoesNotApply
from polyop.checking.sample import Array, Sample, array_of, leaves_named
from polyop.errors import OpCheckError
from polyop.tensor.tensor import Tensor, of_array

#: How far arguments are moved, and how far results may move then, relative to the largest value.
NUDGE, STEADY = 1e-6, 1e-4
#: How far values of two precisions may differ, relative to each and to the largest.
NEAR, NEAR_LARGEST = 1e-2, 1e-3
PRECISE = frozenset(("float32", "float64", "complex64", "complex128"))


def compare_precisions(case: Case) -> None:
    """Compare a call in float32 with the call in float64 on the same numbers.

    Raises:
        OpCheckError: results differ by far more than rounding.
    """
    single = cast(case.sample, "float32")
    double = cast(single, "float64")
    try:
        case.needs_repeats()
    except DoesNotApply:  # two calls differ anyway
        return
    runs = [_leaves(case, s) for s in (single, double, _nudged(double, 1), _nudged(double, -1))]
    largest = max([_largest(array_of(t)) for t in double.tensors()], default=0.0)
    for name, found in runs[0].items():
        others = [run.get(name) for run in runs[1:]]
        if all(other is not None and other.shape == found.shape for other in others):
            _compare(case, name, found, others, largest)


def _leaves(case: Case, sample: Sample) -> dict[str, Array]:
    """Give the results that have values with fractions; none where the operator refuses."""
    ran = attempt(case.op, sample)
    leaves = leaves_named(ran[1], len(case.op._schema.returns)) if ran is not None else []
    tensors = [(name, t) for name, t in leaves if isinstance(t, Tensor)]
    return {name: array_of(t) for name, t in tensors if t.dtype.name in PRECISE}


def _nudged(sample: Sample, sign: int) -> Sample:
    """Move floating values, each second one to the other side."""

    def moved(t: Tensor) -> Tensor:
        array = array_of(t)
        if array.dtype.kind not in "fc":
            return t
        by = np.resize([1 + sign * NUDGE, 1 - sign * NUDGE], array.shape)
        return of_array(np.asarray(array * by, array.dtype))

    return sample.map(moved)


def _largest(array: Array) -> float:
    if array.dtype.kind not in "fc":
        return 0.0
    return float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0))


def _compare(case: Case, name: str, single: Array, others: list[Any], largest: float) -> None:
    double, *moved = others
    scale = max(largest, _largest(double))
    if any((~(np.abs(double - m) <= STEADY * scale)).any() for m in moved):
        return
    far = np.abs(single - double) > NEAR * np.abs(double) + NEAR_LARGEST * scale
    bad = far & np.isfinite(single)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise OpCheckError(
            f"{name} of {case.name} has other values for float32 than for float64",
            op=case.op._schema,
            argument=name,
            declared=f"near {double[place]}, as for float64",
            seen=f"{single[place]} at {list(place)} for float32",
            source=case.kernel_source,
            fix="compute the same in each precision; if numbers are drawn in the dtype of an "
            "argument, say so: tags=(Tag.nondeterministic_seeded,)",
        )


__all__ = ["compare_precisions"]
