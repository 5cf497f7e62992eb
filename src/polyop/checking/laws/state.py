"""State between calls: a result is that of the arguments as they are, not of earlier ones."""

from __future__ import annotations

from collections.abc import Iterator
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
#: By what share values are others that are nearly the same.
NEAR = 1e-4
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
    _compare_alike(case)


def _others(sample: Sample) -> Sample:
    """Give other values, in the range of the sample's."""
    return rolled(_scaled(sample, FACTOR), 1)


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
    least = _rounding(double)
    for (name, old), (_, a), (_, b) in zip(*runs, strict=False):
        if same_bits(old, b) and _far(a, b, least):
            _refuse(case, name, "at other values of the same shapes, a call gives old results")


def _compare_alike(case: Case) -> None:
    """Call with values that share a feature with others: what is kept by that feature is old.

    It is not the result of values that are nearly the same, of which nothing is kept.
    """
    made = _unseen(case.sample)
    if made is None:
        return
    first = cast(cast(made, "float32"), "float64")  # sums of these are the same in each order
    before, least = _leaves(case, first), _rounding(first)
    for alike in _alike(first):
        found = _leaves(case, alike)
        if not any(same_bits(a, b) for (_, a), (_, b) in zip(before, found, strict=False)):
            continue
        near = [_leaves(case, _scaled(alike, by)) for by in (1 - NEAR, 1 + NEAR)]
        for (name, old), (_, a), (_, b), (_, c) in zip(before, found, *near, strict=False):
            alone = _far(a, b, least) and _far(a, c, least) and not _far(b, c, least)
            if same_bits(old, a) and alone:
                _refuse(case, name, "at other values that are alike, a call gives old results")


def _alike(sample: Sample) -> Iterator[Sample]:
    """Give other values with the same first, or last, element, sum and order, or sizes."""
    others = _others(sample)
    for place in (0, -1):

        def kept(t: Tensor, new: Tensor, place: int = place) -> Tensor:
            flat = array_of(new).flatten()
            if flat.size:
                flat[place] = array_of(t).reshape(-1)[place]
            return of_array(flat.reshape(t.shape))

        pairs = zip(sample.tensors(), others.tensors(), strict=True)
        yield sample.rebuilt([kept(t, new) for t, new in pairs])
    yield sample.map(lambda t: of_array(np.flip(array_of(t)).copy()))
    yield _scaled(sample, -1.0)


def _scaled(sample: Sample, by: float) -> Sample:
    """Give the sample with its floating tensors multiplied."""

    def scaled(t: Tensor) -> Tensor:
        array = array_of(t)
        found = np.asarray(array * by, array.dtype) if is_differentiable(t.dtype) else array
        return of_array(found)

    return sample.map(scaled)


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


def _rounding(sample: Sample) -> float:
    """Give how far results may be apart by rounding alone."""
    return ROUNDING * max([_largest(array_of(t)) for t in sample.tensors()])


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
