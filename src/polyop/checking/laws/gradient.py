"""The laws of gradients: what backward gives is what finite differences give.

Inputs move off the sample a little, because samples like to sit where
functions have kinks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from polyop.checking.choices import choices, relisted
from polyop.checking.differences import (
    is_smooth,
)
from polyop.checking.inputs import (
    broadcast,
    cast,
    mirrored,
    of_one_and_many,
    resized,
    rises,
    without_optionals,
)
from polyop.checking.law import Case, DoesNotApply, law
from polyop.checking.laws.backward import (
    compare_alone,
    compare_incoming,
    compare_runs,
    gradient_source,
)
from polyop.checking.laws.casts import compare_gradient_dtypes, compare_tangent_dtypes
from polyop.checking.laws.fake import take
from polyop.checking.laws.forward import (
    compare_forward,
    compare_forward_twice,
    pushed_together,
)
from polyop.checking.laws.kept import another, compare_between, compare_written
from polyop.checking.laws.precision import (
    compare_gradient_precisions,
    compare_tangent_precisions,
)
from polyop.checking.laws.slopes import compare, said
from polyop.checking.laws.untouched import compare_pushed, compare_recorded
from polyop.checking.sample import Array, Sample, array_of, leaves_named
from polyop.checking.slope import Slope
from polyop.errors import AutogradError, GradcheckError, MissingGradientError
from polyop.layers.autograd.api import grad
from polyop.tensor.tensor import Tensor, is_differentiable, of_array

#: How many other sizes are tried.
MADE_SIZES = 1
#: How many elements a sample has at most for all that is tried to be tried twice differentiated.
SMALL = 1 << 12
#: How many other numbers, flags and constants are tried.
MAX_CHOICES = 8


@law(
    "test_autograd_registration", "A result requires grad because of a gradient that is registered."
)
def registration_law(case: Case) -> None:
    """Look whether results have a history that no rule gave them."""
    if not any(t.requires_grad for t in case.sample.tensors()):
        raise DoesNotApply("no argument of the sample requires grad")
    if gradient_source(case) is not None:
        return
    given = case.sample.copy(grad=True)
    for name, t in leaves_named(given.call(case.op), len(case.op._schema.returns)):
        if isinstance(t, Tensor) and t.requires_grad and _has_history(t, given):
            raise AutogradError(
                f"{name} of {case.name} requires grad, but no gradient is registered",
                op=case.op._schema,
                argument=name,
                declared="no backward, and no kernel at an autograd key",
                seen=f"{name} has a history that the kernel recorded",
                source=case.kernel_source,
                fix="register the gradient: polyop.library.register_autograd(op, backward)",
            )


def _has_history(result: Tensor, given: Sample) -> bool:
    """Tell whether backward through a result works, rather than saying that none is there."""
    wanted = [t for t in given.tensors() if t.requires_grad]
    ones = of_array(np.ones_like(array_of(result)))
    try:
        found = grad([result], wanted, [ones], allow_unused=True)
    except MissingGradientError:
        return False
    return any(g is not None for g in found)


@law("test_gradient", "Gradients equal finite differences, and one that is missing is said to be.")
def gradient_law(case: Case) -> str | None:
    """Compare at the sample, at other sizes, signs, numbers and lists, and without optionals."""
    if _has_forward(case):
        _forward(case)
    _needs_gradient(case)
    first, *rest = [Slope(case, s, targets_of(s), 1, at) for at, s in _bases(case)]
    compare_recorded(first)
    unseen = compare(first)
    compare_runs(first)
    compare_alone(first)
    compare_gradient_dtypes(case, first.targets)
    compare_gradient_precisions(first)
    _compare_kept(first)
    for slope in rest:
        compare(slope)
    for at, sample in without_optionals(first.sample):
        if targets_of(sample) and take(case, sample) is not None:
            compare(Slope(case, sample, targets_of(sample), 1, at))
    for slope in _corners(case, first.sample):
        compare_if_taken(slope)
    return said(first, unseen)


def _has_forward(case: Case) -> bool:
    """Tell whether the author gave a rule for forward mode, and something can be moved."""
    given = case.op.rule("jvp") is not None and not case.op._schema.is_mutable
    return given and bool(targets_of(case.sample))


def _forward(case: Case) -> None:
    """Compare forward mode too, wherever backward is compared."""
    case.needs_function()
    (_, base), *rest = _bases(case)
    first = Slope(case, base, targets_of(base), 1)
    compare_pushed(first)
    compare_forward(first)
    compare_tangent_dtypes(case, first.targets)
    compare_tangent_precisions(first)
    others = [(at, s) for at, s in (*rest, *without_optionals(base)) if take(case, s) is not None]
    slopes = [Slope(case, s, targets_of(s), 1, at) for at, s in others]
    for slope in (*slopes, *_corners(case, base)):
        compare_forward_if_taken(slope)


def _compare_kept(slope: Slope) -> None:
    """Compare where other calls, or writes, come between the call and its backward."""
    case, base = slope.case, slope.sample
    larger = [s for _, s in islice(resized(base), 1) if take(case, s) is not None]
    for other in (another(case, base, _off_kinks), *larger):
        compare_between(slope, Slope(case, other, targets_of(other), 1))
    compare_written(slope)


@law("test_second_order", "Gradients of gradients equal finite differences.")
def second_order_law(case: Case) -> str | None:
    """Compare the gradient's own gradient, and the forward derivative's forward derivative."""
    if _has_forward(case):
        case.needs_function()
        for slope in _all_slopes(case):
            if not slope.at or _is_taken(slope, partial(pushed_together, slope)):
                _compare_made(compare_forward_twice, slope)
    _needs_gradient(case)
    first, *rest = _all_slopes(case)
    try:
        unseen = compare(replace(first, order=2))
        compare_incoming(first)
    except GradcheckError:
        raise
    except (AutogradError, MissingGradientError) as error:
        raise DoesNotApply(f"the gradient cannot be differentiated: {error.problem}") from error
    for slope in rest:
        compare_if_taken(replace(slope, order=2))
    return said(first, unseen)


def _all_slopes(case: Case) -> Iterator[Slope]:
    """Give slopes at the sample, and at another size and in the corners of what is small."""
    bases = list(_bases(case))
    base = bases[0][1]
    small = sum(t.numel() for t in base.tensors()) <= SMALL
    for at, sample in bases if small else bases[:1]:
        yield Slope(case, sample, targets_of(sample), 1, at)
    yield from _corners(case, base) if small else _of_other_sign(case, base)


def _needs_gradient(case: Case) -> None:
    """Stop where there is nothing to compare.

    Raises:
        DoesNotApply: so it is.
        MissingGradientError: the sample asks for a gradient, and there is none.
    """
    if case.op._schema.is_mutable:
        raise DoesNotApply("the operator writes its arguments")
    case.needs_function()
    if not targets_of(case.sample):
        raise DoesNotApply("no tensor of the sample is floating")
    rule = case.op.rule("backward")
    if rule is not None and rule.backward is None:
        raise DoesNotApply("the author says that there is no gradient")
    if gradient_source(case) is None:
        _refuse_missing(case)


def _refuse_missing(case: Case) -> None:
    asked = [name for name, t in case.sample.named() if t.requires_grad]
    if not asked:
        raise DoesNotApply("no gradient is registered, and the sample does not ask for one")
    results = leaves_named(case.run(), len(case.op._schema.returns))
    if not any(isinstance(t, Tensor) and is_differentiable(t.dtype) for _, t in results):
        raise DoesNotApply("no result is floating")
    raise MissingGradientError(
        f"{case.name} has no gradient, though {', '.join(asked)} of the sample requires grad",
        op=case.op._schema,
        argument=asked[0],
        declared="no backward",
        seen="a sample that requires grad",
        source=case.op.source,
        fix=f"add polyop.library.register_autograd({case.name!r}, backward), or say that there "
        f"is none: register_autograd({case.name!r}, None)",
    )


def targets_of(sample: Sample) -> list[int]:
    """Give the positions of the tensors to differentiate: those marked, or all floating ones."""
    tensors = sample.tensors()
    floating = [i for i, t in enumerate(tensors) if is_differentiable(t.dtype)]
    return [i for i in floating if tensors[i].requires_grad] or floating


def _bases(case: Case) -> Iterator[tuple[str, Sample]]:
    """Give the sample in double precision and off its kinks, then another size of it."""
    double = cast(case.sample, "float64")
    base = double if take(case, double) is not None else case.sample
    off = _off_kinks(base)
    base = off if take(case, off) is not None else base
    yield "", _marked(case, base)
    # Made indices may name one element twice, and then nothing is smooth.
    if not any(t.dtype.kind in "iu" for t in base.tensors()):
        off_kinks = ((at, _off_kinks(s)) for at, s in resized(base))
        for at, sample in islice((p for p in off_kinks if take(case, p[1])), MADE_SIZES):
            yield at, _marked(case, sample)


def _corners(case: Case, base: Sample) -> Iterator[Slope]:
    """Give slopes that the author may not have thought of, where the operator takes them."""
    others = dict([*_other_sizes(base), *relisted(base)])
    for at, sample in (*broadcast(base), *((at, _off_kinks(s)) for at, s in others.items())):
        if take(case, sample) is not None:
            marked = _marked(case, sample)
            yield Slope(case, marked, targets_of(marked), 1, at)
    yield from _of_other_sign(case, base)
    for at, sample in islice(choices(base), MAX_CHOICES):
        if take(case, sample) is not None:
            slope = Slope(case, _marked(case, sample), targets_of(base), 1, at)
            yield replace(slope, targets=[i for i in slope.targets if is_smooth(slope, i)])


def _other_sizes(base: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with a size of one, with one element and with many, if no index is made."""
    if not any(t.dtype.kind in "iu" for t in base.tensors()):
        yield from islice(((at, s) for at, s in resized(base) if at.endswith("-> 1")), 1)
        yield from of_one_and_many(base)


def _of_other_sign(case: Case, base: Sample) -> Iterator[Slope]:
    sample = mirrored(base)
    if take(case, sample) is not None:
        yield Slope(case, _marked(case, sample), targets_of(base), 1, "the other sign")


def compare_if_taken(slope: Slope) -> None:
    """Compare where the operator has finite results and gradients, and the same ones twice.

    Out of its domain it has neither, and a backward that raises is not silent.

    Raises:
        GradcheckError: a gradient differs.
    """
    if _is_taken(slope, slope.gradients):
        _compare_made(compare, slope)


def compare_forward_if_taken(slope: Slope) -> None:
    """Do the same with the forward derivative.

    Raises:
        GradcheckError: it differs.
    """
    if _is_taken(slope, lambda: pushed_together(slope)):
        _compare_made(partial(compare_forward, most=1), slope)


def _is_taken(slope: Slope, derive: Callable[[], Sequence[Array | None]]) -> bool:
    if not slope.targets:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told = [g for g in derive() if g is not None]
    except Exception:  # the operator may take what its rule does not
        return False
    values, again = ([array_of(t) for t in slope.plain(slope.start)] for _ in range(2))
    finite = all(bool(np.isfinite(a).all()) for a in (*values, *told))
    return finite and all(a.tobytes() == b.tobytes() for a, b in zip(values, again, strict=True))


def _compare_made(compare_with: Callable[[Slope], object], slope: Slope) -> None:
    """Compare at made inputs, where what a rule does not take says nothing."""
    try:
        compare_with(slope)
    except GradcheckError:
        raise
    except Exception:
        return


def _off_kinks(sample: Sample) -> Sample:
    """Move all floating values a little, each by another amount, so that none are tied."""
    return sample.rebuilt([_moved(t) for t in sample.tensors()])


def _moved(t: Tensor) -> Tensor:
    array = array_of(t)
    if not is_differentiable(array.dtype):
        return t
    noise = np.random.default_rng(7).uniform(0.5, 1.0, array.shape) * 1e-2
    moved = array + noise * np.maximum(np.abs(array), 0.1)
    kept = np.where(np.isfinite(array), moved, array)  # an infinity less another is no number
    kept = np.sort(kept) if rises(array) else kept
    return of_array(np.asarray(kept, array.dtype))  # of no axes, sums are no arrays


def _marked(case: Case, sample: Sample) -> Sample:
    """Let the tensors require grad that do so in the author's sample."""
    given = {name: t.requires_grad for name, t in case.sample.named()}
    # A list that became longer is marked as it was.
    lists = {name.partition("[")[0] for name, marked in given.items() if marked}
    made = []
    for name, t in sample.named():
        made.append(of_array(array_of(t)))
        if given.get(name, name.partition("[")[0] in lists):
            made[-1].requires_grad_()
    return sample.rebuilt(made)
