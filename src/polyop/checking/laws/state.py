"""State between calls: a result is that of the arguments as they are, not of earlier ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.checking.compare import same_bits
from polyop.checking.inputs import cast, resized, rolled
from polyop.checking.law import Case, outcome
from polyop.checking.laws.fake import take
from polyop.checking.sample import Array, Sample, array_of, leaves_named
from polyop.errors import OpCheckError
from polyop.tensor.tensor import Tensor, is_differentiable, of_array

#: By how much values are multiplied, so that also sums of them are others.
FACTOR = 0.75
#: How far results are apart that are not of the same values, relative to the largest of them, and
#: of the arguments: what is zero in one precision may be rounding in another.
FAR, ROUNDING = 1e-2, 1e-6
NO_CACHE = "keep no result between calls, or find it by all values of the arguments"


def compare_states(case: Case) -> None:
    """Look for results of earlier calls that are given back.

    Raises:
        OpCheckError: there is one.
    """
    _compare_rewritten(case)
    _compare_remembered(case)


def _others(sample: Sample) -> Sample:
    """Give other values, in the range of the sample's."""

    def smaller(t: Tensor) -> Tensor:
        array = array_of(t)
        found = np.asarray(array * FACTOR, array.dtype) if is_differentiable(t.dtype) else array
        return of_array(found)

    return rolled(sample.map(smaller), 1)


def _compare_rewritten(case: Case) -> None:
    """Call, write the arguments, and call again: what is kept by address or identity is old."""
    other = _others(case.sample)
    if take(case, other) is None:
        return
    given = case.sample.copy()
    given.call(case.op)
    for t, new in zip(given.tensors(), other.tensors(), strict=True):
        array_of(t)[...] = array_of(new)
    unseen = given.copy()
    got, wanted = outcome(case, given), outcome(case, unseen)
    for (name, a), (_, b) in zip(got, wanted, strict=True):
        if not same_bits(a, b):
            _refuse(case, name, "after its arguments were written, a call gives old results")


def _compare_remembered(case: Case) -> None:
    """Call with other values of the same shapes: what is kept by shape and dtype is old.

    No one call shows this, for the first at each shape is right. So each precision is given other
    values at first; then they disagree about the same ones.
    """
    made = _unseen(case.sample)
    if made is None:
        return
    double, single = cast(made, "float64"), cast(_others(made), "float32")
    runs = [_leaves(case, sample) for sample in (double, single, cast(single, "float64"))]
    least = ROUNDING * max([_largest(array_of(t)) for t in double.tensors()])
    for (name, old), (_, a), (_, b) in zip(*runs, strict=False):
        if same_bits(old, b) and _far(a, b, least):
            _refuse(case, name, "at other values of the same shapes, a call gives old results")


def _leaves(case: Case, sample: Sample) -> list[tuple[str, Any]]:
    """Give the results, none where the operator refuses."""
    ran = take(case, sample)
    return [] if ran is None else leaves_named(ran[1], len(case.op._schema.returns))


def _unseen(sample: Sample) -> Sample | None:
    """Give the sample at sizes that no other law tries, if it has values with fractions."""
    if not any(is_differentiable(t.dtype) for t in sample.tensors()):
        return None
    return next((twice for _, once in resized(sample) for _, twice in resized(once)), None)


def _far(a: object, b: object, least: float) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    p, q = array_of(a), array_of(b)
    if p.shape != q.shape or not is_differentiable(p.dtype):
        return False
    return _largest(p - q) > max(least, FAR * max(_largest(p), _largest(q)))


def _largest(array: Array) -> float:
    if not is_differentiable(array.dtype):
        return 0.0
    return float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0))


def _refuse(case: Case, name: str, problem: str) -> None:
    raise OpCheckError(
        f"{case.name} remembers: {problem}",
        op=case.op._schema,
        argument=name,
        declared="a result of the arguments alone",
        seen="the result of an earlier call",
        source=case.kernel_source,
        fix=NO_CACHE,
    )


__all__ = ["compare_states"]
