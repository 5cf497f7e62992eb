"""The law of decompositions: what an operator is made of computes what its kernel computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from polyop.checking.compare import Tolerance, compare_leaves
from polyop.checking.inputs import cast, mixed, negated, other_kinds, resized, revalued
from polyop.checking.law import Case, DoesNotApply, law
from polyop.checking.laws.backward import gradient_source
from polyop.checking.laws.gradient import targets_of
from polyop.checking.laws.schema import check_sharing
from polyop.checking.sample import Sample, array_of, leaves_named
from polyop.checking.slope import weights
from polyop.dispatch.context import run_under, word
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.results import answer_of
from polyop.errors import MutationError, OpCheckError
from polyop.layers.autograd.api import grad
from polyop.tensor.tensor import Tensor, is_differentiable, is_floating, of_array

Leaves = list[tuple[str, Any]]


#: How far values at made inputs may differ: two ways to compute them round differently.
LOOSE = {"float32": 1e-3, "complex64": 1e-3}
LOOSE_DOUBLE = 1e-5
#: How far arguments are moved off the sample for gradients, because it may sit on a kink.
STEP = 1e-3


@law("test_decomposition", "A decomposition computes what the kernel computes.")
def decomposition_law(case: Case) -> str | None:
    """Run the kernel, and the decomposition, on copies of the sample and on made inputs."""
    composed = _composed(case)
    if case.op._schema.is_mutable:
        raise DoesNotApply("the operator writes its arguments")
    case.needs_repeats()
    sample = case.sample.copy()
    before = [array_of(t).tobytes() for t in sample.tensors()]
    got = _parts(case, composed, sample)
    for (name, t), old in zip(sample.named(), before, strict=True):
        if array_of(t).tobytes() != old:
            raise MutationError(
                f"the decomposition of {case.name} writes its argument {name!r}",
                op=case.op._schema, argument=name, declared="not written",
                seen="other values after the call", source=_source(case),
                fix=f"compute anew, without methods that end in _ (x.mul(y), not {name}.mul_(y))",
            )  # fmt: skip
    check_sharing(case, sample, got, _source(case))
    _compare(
        case,
        got,
        leaves_named(run_under(_quiet(), case.run), len(case.op._schema.returns)),
        case.tolerance,
    )
    singles = ((f"dtype {name}", cast(case.sample, name)) for name in ("float32", "float64"))
    for at, made in chain(
        resized(case.sample), negated(case.sample), singles, revalued(case.sample)
    ):
        compare_made(case, composed, made, at)
    for at, made in with_special_values(case.sample):
        compare_made(case, composed, made, at, finite=False)
    compare_gradients(case, composed)
    try:
        for at, made in chain(mixed(case.sample), other_kinds(case.sample)):
            compare_made(case, composed, made, at)
    except OpCheckError as error:
        return f"{error.problem}: {error.seen}. Refuse it in both, or give the kernel's results"
    return _sign_note(case, composed)


#: What kernels treat apart, or overflows on the way, and samples seldom hold.
SPECIAL = (0.0, 0.5, 1e4, -1e4, np.nan, np.inf, -np.inf)


def with_special_values(
    sample: Sample, values: Sequence[float] = SPECIAL
) -> Iterator[tuple[str, Sample]]:
    """Give the sample with a special value as the first element of one floating tensor."""
    tensors = sample.tensors()
    for k, (name, t) in enumerate(sample.named()):
        if is_floating(t.dtype) and t.numel():
            for value in values:
                array = array_of(t).copy()
                array[(0,) * array.ndim] = value
                made = [*tensors[:k], of_array(array), *tensors[k + 1 :]]
                yield f"{value:g} in {name}", sample.rebuilt(made)


def _sign_note(case: Case, composed: Callable[..., Any]) -> str | None:
    """Say where a zero has another sign, which is no other number."""
    for at, made in with_special_values(case.sample, (-0.0,)):
        try:
            wanted = leaves_named(run_under(_quiet(), case.run, made), len(case.op._schema.returns))
            got = _parts(case, composed, made.copy())
        except Exception:  # a refusal is no silent difference
            return None
        for (name, a), (_, b) in zip(got, wanted, strict=False):
            if isinstance(a, Tensor) and isinstance(b, Tensor) and is_floating(a.dtype):
                p, q = array_of(a), array_of(b)
                if (
                    p.shape == q.shape
                    and ((p == 0) & (q == 0) & (np.signbit(p) != np.signbit(q))).any()
                ):
                    return f"{name} of the decomposition has another sign of zero at {at}"
    return None


def _quiet() -> Any:
    return word().without_grad


def _parts(case: Case, composed: Callable[..., Any], sample: Sample) -> Leaves:
    """Run the decomposition, without gradients."""
    given = answer_of(case.op, run_under(_quiet(), sample.call, composed), sample.values)
    return leaves_named(given, len(case.op._schema.returns))


def compare_made(
    case: Case, composed: Callable[..., Any], made: Sample, at: str, *, finite: bool = True
) -> None:
    """Compare at made inputs; what either refuses is free, or where the kernel has no numbers.

    Args:
        case: the operator.
        composed: its decomposition.
        made: the inputs.
        at: what they are.
        finite: whether results that are no numbers are free.

    Raises:
        OpCheckError: they differ.
    """
    there = Case(case.op, made, case.rtol, case.atol)
    try:
        wanted = leaves_named(run_under(_quiet(), there.run), len(case.op._schema.returns))
        got = _parts(case, composed, made.copy())
        known = not finite or all(_finite(leaf) for _, leaf in wanted)
        comparable = known and there.repeats
    except Exception:  # a refusal is no silent difference
        return
    if comparable:
        names = {t.dtype.name for t in made.tensors()}
        near = max([LOOSE.get(name, LOOSE_DOUBLE) for name in names], default=LOOSE_DOUBLE)
        tolerance = (near, near) if case.rtol is None else case.tolerance
        _compare(case, got, wanted, tolerance, at=f" at {at}")


def _finite(leaf: Any) -> bool:
    return not isinstance(leaf, Tensor) or bool(np.isfinite(array_of(leaf)).all())


def _compare(
    case: Case, got: Leaves, wanted: Leaves, tolerance: Tolerance,
    *, at: str = "", what: str = "{} of",
) -> None:  # fmt: skip
    compare_leaves(
        got,
        wanted,
        tolerance,
        f"{what} the decomposition of {case.name} differs from the kernel's{at}",
        op=case.op._schema,
        declared="what the kernel gives",
        source=_source(case),
        fix="compare the two: gradients, batches and compiled code use the decomposition",
    )


# -- gradients ----------------------------------------------------------------


def compare_gradients(case: Case, composed: Callable[..., Any]) -> None:
    """Compare gradients through the decomposition with the operator's own; what fails is free.

    Raises:
        OpCheckError: they differ.
    """
    if gradient_source(case) is None:
        return
    made = case.sample.map(_off_kinks)
    try:
        wanted, got = _gradients(case, made, case.op), _gradients(case, made, composed)
    except Exception:  # a gradient that fails is another law's affair, or no silent difference
        return
    near = (LOOSE["float32"],) * 2 if case.rtol is None else case.tolerance
    _compare(case, got, wanted, near, what="the gradient for {} through")


def _off_kinks(t: Tensor) -> Tensor:
    """Move each floating element a little, by another amount."""
    array = array_of(t)
    if array.dtype.kind not in "fc":
        return t
    by = np.linspace(STEP, 2 * STEP, array.size).reshape(array.shape)
    return of_array(np.asarray(array + by, array.dtype))


def _gradients(case: Case, sample: Sample, fn: Callable[..., Any]) -> Leaves:
    """Give the gradients of weighted results; zeros where there is none."""
    given = sample.copy()
    targets = set(targets_of(case.sample))
    inputs = [(n, t.requires_grad_()) for i, (n, t) in enumerate(given.named()) if i in targets]
    leaves = leaves_named(given.call(fn), len(case.op._schema.returns))
    results = [t for _, t in leaves if isinstance(t, Tensor) and is_differentiable(t.dtype)]
    found = [(t, w) for t, w in zip(results, weights(results), strict=True) if t.requires_grad]
    slopes: Sequence[Tensor | None] = [None] * len(inputs)
    if found and inputs:
        outputs, scale = zip(*found, strict=True)
        slopes = grad(outputs, [t for _, t in inputs], scale, allow_unused=True)
    return [
        (repr(name), of_array(np.zeros_like(array_of(t))) if slope is None else slope)
        for (name, t), slope in zip(inputs, slopes, strict=True)
    ]


def _composed(case: Case) -> Callable[..., Any]:
    """Give the decomposition, where there is a kernel beside it.

    Raises:
        DoesNotApply: there is none.
    """
    op = case.op
    found: Callable[..., Any] | None = op.rule("decomposition")
    if found is not None:
        return found
    kernel = op.places.top(DispatchKey.CompositeImplicitAutograd)
    if kernel is None or kernel.fn is None or set(op.kernels()) == {_COMPOSITE}:
        raise DoesNotApply("the operator has no decomposition beside a kernel")
    return kernel.fn


_COMPOSITE = DispatchKey.CompositeImplicitAutograd


def _source(case: Case) -> Any:
    slot = "decomposition" if case.op.rule("decomposition") is not None else _COMPOSITE
    return case.op.rule_source(slot)
