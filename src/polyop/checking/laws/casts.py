"""Gradients and tangents have the dtype of what they belong to; others are cast, and told of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyop.checking.inputs import cast
from polyop.checking.law import Case
from polyop.checking.laws.backward import gradient_source
from polyop.checking.laws.fake import take
from polyop.checking.laws.forward import fresh, function_of, random_like
from polyop.checking.sample import Sample, leaves_named
from polyop.checking.slope import Slope, weights
from polyop.errors import AutogradError
from polyop.layers.autograd.api import grad
from polyop.layers.autograd.forward_mode import jvp
from polyop.layers.autograd.mirror import Cast, watching_casts
from polyop.tensor.tensor import Tensor, is_differentiable


class Side(NamedTuple):
    """One mode of differentiation, in errors.

    Attributes:
        rule: of the author.
        given: what it returns.
        fix: what to do, with the name of what it is of.
    """

    rule: str
    given: str
    fix: str


def compare_gradient_dtypes(case: Case, targets: Sequence[int]) -> None:
    """Look for gradients of another dtype than their argument's.

    Raises:
        AutogradError: backward gives one, though all of the call has one dtype.
    """
    fix = "return a gradient of the argument's dtype: .astype({}.dtype)"
    side = Side("backward", "gradient", fix)
    _compare(case, targets, _of_backward, side, gradient_source(case))


def compare_tangent_dtypes(case: Case, targets: Sequence[int]) -> None:
    """Look for tangents of another dtype than their result's.

    Raises:
        AutogradError: jvp gives one, though all of the call has one dtype.
    """
    side = Side("jvp", "tangent", "return a tangent of the dtype of {}")
    _compare(case, targets, _of_jvp, side, case.op.rule_source("jvp"))


def _compare(
    case: Case,
    targets: Sequence[int],
    casts_of: Callable[[Case, Sample, Sequence[int]], Sequence[Cast]],
    side: Side,
    source: Any,
) -> None:
    """Tell of any other dtype at the sample; in double precision of one that loses some of it."""
    for told in casts_of(case, case.sample.copy(), targets):
        _refuse(case, told, side, source)
    double = cast(case.sample, "float64")
    if take(case, double) is not None:
        for told in casts_of(case, double, targets):
            if not np.can_cast(told[1], told[2]):
                _refuse(case, told, side, source)


def _of_backward(case: Case, sample: Sample, targets: Sequence[int]) -> Sequence[Cast]:
    """Give the gradients that are cast; none where what their dtype is follows from no argument."""
    given = sample.tensors()
    inputs = [given[i].requires_grad_() for i in targets]
    leaves = leaves_named(sample.call(case.op), len(case.op._schema.returns))
    results = [t for _, t in leaves if isinstance(t, Tensor) and t.requires_grad]
    if not results or not _one_dtype(given, results):
        return ()
    with watching_casts() as casts:
        grad(results, inputs, weights(results), allow_unused=True)
    return casts


def _of_jvp(case: Case, sample: Sample, targets: Sequence[int]) -> Sequence[Cast]:
    """Give the tangents that are cast, in the same way."""
    slope = Slope(case, sample, list(targets), 1)
    arrays = [slope.start[i] for i in targets]
    with watching_casts() as casts:
        results, _ = jvp(function_of(slope, targets), fresh(arrays), fresh(random_like(arrays, 11)))
    return casts if _one_dtype(sample.tensors(), results) else ()


def _one_dtype(given: Sequence[Tensor], results: Sequence[Tensor]) -> bool:
    return len({t.dtype for t in (*given, *results) if is_differentiable(t.dtype)}) <= 1


def _refuse(case: Case, told: Cast, side: Side, source: Any) -> None:
    name, declared, seen = told
    raise AutogradError(
        f"{side.rule} of {case.name} returned a {side.given} of the wrong dtype for {name!r}; "
        "it is cast",
        op=case.op._schema,
        argument=name,
        declared=f"dtype {declared}",
        seen=f"dtype {seen}",
        source=source,
        fix=side.fix.format(name),
    )
