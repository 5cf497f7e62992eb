"""What is kept for backward: by each call for itself, and safe from what is written later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from polyop.checking.choices import others_of
from polyop.checking.inputs import rolled
from polyop.checking.law import Case
from polyop.checking.laws.backward import compare_one, gradient_source
from polyop.checking.laws.fake import take
from polyop.checking.sample import Array, Sample, array_of, leaves_named
from polyop.checking.slope import Slope, gradients_of
from polyop.errors import GradcheckError, first_line
from polyop.tensor.storage import shares_memory
from polyop.tensor.tensor import Tensor, is_differentiable, of_array

KEEP = "keep what backward needs in ctx, and tensors by ctx.save_for_backward"


# -- another call -------------------------------------------------------------


def another(case: Case, sample: Sample, off: Callable[[Sample], Sample]) -> Sample:
    """Give a call with other values and other plain arguments, as far as they are taken."""
    made = off(rolled(sample, 1))
    for i in range(len(made.values)):
        for _, changed in islice(others_of(made, i), 1):
            made = changed if take(case, changed) is not None else made
    return made


def compare_between(slope: Slope, other: Slope) -> None:
    """Compare with the gradients when another call runs between the call and its backward.

    Raises:
        GradcheckError: they are others, or backward fails.
    """
    wanted = _filled(slope, slope.gradients())
    terms, inputs = slope.terms(slope.start)
    try:
        other.terms(other.start)
    except Exception:  # what this call does not take says nothing of the first
        return
    try:
        found = _filled(slope, gradients_of(terms, inputs))
    except Exception as error:
        raise GradcheckError(
            f"the backward of {slope.case.name} fails where another call came between",
            op=slope.case.op._schema,
            declared="the same gradient",
            seen=f"{type(error).__name__}: {first_line(error)}",
            source=gradient_source(slope.case),
            fix=KEEP,
        ) from error
    for i, a, b in zip(slope.targets, wanted, found, strict=True):
        problem = "is another when another call came between"
        compare_one(slope, i, told=b, seen=a, problem=problem, fix=KEEP)


def _filled(slope: Slope, gradients: Sequence[Array | None]) -> list[Array]:
    """Give zeros where there is no gradient."""
    pairs = zip(slope.targets, gradients, strict=True)
    return [np.zeros_like(slope.start[i]) if g is None else g for i, g in pairs]


# -- writes -------------------------------------------------------------------


def compare_written(slope: Slope) -> None:
    """Write each argument and each result between the call and backward.

    Raises:
        GradcheckError: the gradient is silently another.
    """
    wanted = _filled(slope, slope.gradients())
    names = [name for name, _ in slope.sample.named()]
    for k in range(len(names)):
        _compare_written(slope, wanted, names[k], k)
    for name, _ in _leaves(slope, slope.sample.copy()):
        _compare_written(slope, wanted, name, None)


def _leaves(slope: Slope, sample: Sample) -> list[tuple[str, Tensor]]:
    leaves = leaves_named(sample.call(slope.case.op), len(slope.case.op._schema.returns))
    return [(name, t) for name, t in leaves if isinstance(t, Tensor)]


def _compare_written(
    slope: Slope, wanted: Sequence[Array], name: str, argument: int | None
) -> None:
    sample, inputs = slope.fresh(slope.start)
    given = [t.clone() for t in sample.tensors()]  # what asks for gradients itself is not written
    leaves = _leaves(slope, sample.rebuilt(given))
    if any(shares_memory(t, g) for _, t in leaves for g in given):
        return
    # Copies stay what they are when the results are written.
    terms = [t.clone() for _, t in leaves if t.requires_grad]
    target: Any = given[argument] if argument is not None else dict(leaves)[name]
    try:
        target.copy_(_written(target))
        found = _filled(slope, gradients_of(terms, inputs))
    except Exception:  # backward says so, and nothing is silent
        return
    for i, a, b in zip(slope.targets, wanted, found, strict=True):
        compare_one(
            slope, i, told=b, seen=a,
            problem=f"is silently another when {name!r} is written before backward runs",
            fix="keep tensors by ctx.save_for_backward, which tells when they are written",
        )  # fmt: skip


def _written(t: Tensor) -> Tensor:
    """Give other values for a tensor; those of indices stay in their range."""
    array = array_of(t)
    if is_differentiable(array.dtype):
        return of_array(np.asarray(array * 3 + 1, array.dtype))
    return of_array(np.asarray(~array) if array.dtype.kind == "b" else np.roll(array, 1))
