"""The law of batches: one batched call gives what a loop over the batch gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from polyop.checking.compare import compare_leaves
from polyop.checking.inputs import revalued
from polyop.checking.law import Case, DoesNotApply, law, outcome
from polyop.checking.laws.backward import gradient_source
from polyop.checking.laws.gradient import targets_of
from polyop.checking.laws.schema import check_sharing
from polyop.checking.laws.untouched import compare_held, held
from polyop.checking.sample import Array, Sample, array_of
from polyop.errors import OpCheckError, PolyopError
from polyop.layers.autograd.api import grad
from polyop.layers.vmap import vmap
from polyop.objects.effects import has_effects
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, of_array

Dims = tuple[int | None, ...]
Leaves = list[tuple[str, Any]]
#: How many patterns of in_dims are tried for one sample.
MAX_PATTERNS = 27
#: The samples of a batch: the first, and its elements moved by one place.
BATCH = 2
#: How many equal samples draw, of how many elements in all at most.
MOST_DRAWS, MOST_DRAWN = 32, 1 << 16
#: Other sizes of a batch that are tried.
OTHER_BATCHES = (1, 3)


@law("test_vmap", "A vmap gives what a loop over the batch gives, for every in_dims and nested.")
def batching_law(case: Case) -> None:
    """Compare a batched call with the loop, for each pattern of in_dims."""
    if case.op.rule("vmap") is None and Tag.pointwise not in case.op.tags:
        raise DoesNotApply("there is no vmap rule, so vmap is the loop")
    if not case.sample.tensors():
        raise DoesNotApply("the sample has no tensor")
    compare_draws(case)
    case.needs_repeats()
    variants = variants_of(case)
    for dims in patterns(case.sample):
        compare_batch(case, variants, dims)
    front = (0,) * len(variants[0])
    for size in OTHER_BATCHES:
        compare_batch(case, [*variants, variants[0]][:size], front)
    compare_empty(case, variants[0])
    for said, sample in revalued(case.sample):
        compare_revalued(Case(case.op, sample, case.rtol, case.atol), said)
    compare_nested(case, variants)
    if gradient_source(case) is not None and not case.op._schema.is_mutable:
        compare_gradients(case, variants, front)
        for k in range(len(front) if len(front) > 1 else 0):
            compare_gradients(case, variants, (*front[:k], None, *front[k + 1 :]))


def variants_of(case: Case) -> list[list[Array]]:
    """Give the sample's arrays, then arrays of the same shapes with other values."""
    first = [array_of(t) for t in case.sample.tensors()]
    moved = [np.roll(a, 1) for a in first]
    try:
        case.run(case.sample.rebuilt([of_array(a) for a in moved]))
    except Exception:  # outside of the operator's domain: a batch of equals
        moved = first
    return [first, moved]


def patterns(sample: Sample) -> Iterator[Dims]:
    """Give in_dims for each tensor: not batched, in front, behind the first axis, last."""
    choices = []
    for t in sample.tensors():
        places: list[int | None] = [*dict.fromkeys([0, *range(1, t.ndim + 1)[:1], t.ndim])]
        # What is written must be batched when anything is.
        choices.append(places if id(t) in sample.written() else [*places, None])
    every = [dims for dims in product(*choices) if any(d is not None for d in dims)]
    # Where there are too many, those in which few tensors differ from the first choice go first,
    # so that each choice of each tensor is tried.
    every.sort(key=lambda dims: sum(d != 0 for d in dims))
    alone = [tuple(-1 if d == 0 else None for d in dims) for dims in every if _single_zero(dims)]
    return iter([*every[: MAX_PATTERNS - len(alone)], *alone])


def _single_zero(dims: Dims) -> bool:
    return sum(d is not None for d in dims) == 1 and 0 in dims


def compare_batch(case: Case, variants: Sequence[Sequence[Array]], dims: Dims) -> None:
    """Compare for one pattern.

    Raises:
        OpCheckError: batched call and loop differ.
    """
    given = case.sample.rebuilt(_batched(variants, dims))
    source, written = case.op.rule_source("vmap"), given.written()
    before = held((f"the argument {n!r}", t) for n, t in given.named() if id(t) not in written)
    said = f"in_dims={dims if len(dims) > 1 else dims[0]}"
    got = _attempt(case, said, flat_function(case), dims, given.tensors())
    wanted = _loop(case, variants, dims)
    _compare(case, said, got, wanted)
    compare_held(case, before, "the vmap rule", source)
    named = zip([name for name, _ in wanted], got, strict=True)
    new = [(name, t) for name, t in named if not name.startswith("argument ")]
    check_sharing(case, given, new, source)


def _batched(variants: Sequence[Sequence[Array]], dims: Dims) -> list[Tensor]:
    return [
        of_array(columns[0].copy() if dim is None else stack(columns, dim))
        for columns, dim in zip(zip(*variants, strict=True), dims, strict=True)
    ]


def _loop(case: Case, variants: Sequence[Sequence[Array]], dims: Dims) -> Leaves:
    return stacked([_single(case, variants, dims, i) for i in range(len(variants))])


def compare_revalued(case: Case, said: str) -> None:
    """Compare for another flag, number or choice; what either refuses says nothing.

    Raises:
        OpCheckError: batched call and loop differ.
    """
    try:
        variants = variants_of(case)
        front = (0,) * len(variants[0])
        wanted = _loop(case, variants, front)
        got = mapped(case, flat_function(case), front)(*_batched(variants, front))
        repeats = case.repeats
    except Exception:  # no silent difference
        return
    if repeats:
        _compare(case, f"in_dims=0 and {said}", got, wanted)


def compare_empty(case: Case, arrays: Sequence[Array]) -> None:
    """Compare shapes and dtypes for a batch of no samples, which a rule may refuse.

    Raises:
        OpCheckError: they are not those of one call, behind a batch of size 0.
    """
    given = [of_array(np.empty((0, *a.shape), a.dtype)) for a in arrays]
    single = _single(case, [arrays], (0,) * len(arrays), 0)
    wanted = [(n, of_array(np.empty((0, *t.shape), t.dtype))) for n, t in single]
    try:
        got = mapped(case, flat_function(case))(*given)
    except Exception:  # no silent difference
        return
    _compare(case, "in_dims=0 and a batch of size 0", got, wanted)


def stack(columns: Sequence[Array], dim: int) -> Array:
    """Put arrays side by side along a new axis; its memory order is not the axes' order."""
    return np.stack(columns, axis=dim)


def _single(case: Case, variants: Sequence[Sequence[Array]], dims: Dims, i: int) -> Leaves:
    arrays = _chosen(variants, dims, i)
    return _tensors(outcome(case, case.sample.rebuilt([of_array(a.copy()) for a in arrays])))


def _chosen(variants: Sequence[Sequence[Array]], dims: Dims, i: int) -> list[Array]:
    """Give the arrays of one sample of a batch."""
    return [variants[0 if d is None else i][k] for k, d in enumerate(dims)]


def mapped(case: Case, fn: Any, dims: Any = 0) -> Any:
    """Give a function of a batch; of an operator that draws, each sample draws for itself."""
    draws = Tag.nondeterministic_seeded in case.op.tags
    return vmap(fn, in_dims=dims, randomness="different" if draws else "error")


def compare_draws(case: Case) -> None:
    """Look whether all samples of a batch are given the numbers of one draw.

    Raises:
        OpCheckError: so it is.
    """
    op, arrays = case.op, [array_of(t) for t in case.sample.tensors()]
    if Tag.nondeterministic_seeded not in op.tags or op._schema.is_mutable or has_effects(op):
        return
    rows = max(2, min(MOST_DRAWS, MOST_DRAWN // max([1, *[a.size for a in arrays]])))
    dims = (0,) * len(arrays)
    loop = stacked([_single(case, [arrays], dims, 0) for _ in range(rows)])
    given = [of_array(np.stack([a] * rows)) for a in arrays]
    got = _attempt(case, 'randomness="different"', flat_function(case), dims, given)
    for (name, alone), t in zip(loop, got, strict=True):
        if _rows(array_of(alone)) > 1 and _rows(array_of(t)) == 1:
            raise OpCheckError(
                f"{name} of {case.name} under vmap is drawn once for a whole batch",
                op=op._schema,
                argument='randomness="different"',
                declared=f"{rows} equal samples that draw for themselves, as calls do",
                seen="one result for all of them",
                source=op.rule_source("vmap"),
                fix="draw numbers of the batch's whole shape in the rule",
            )


def _rows(array: Array) -> int:
    """Count the rows that are others."""
    return len({row.tobytes() for row in array})


def flat_function(case: Case) -> Any:
    """Give the operator as a function of its tensors, which gives what is new or written."""

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t for _, t in _tensors(outcome(case, case.sample.rebuilt(tensors))))

    return flat


def _tensors(leaves: Leaves) -> Leaves:
    return [(name, t) for name, t in leaves if isinstance(t, Tensor)]


def stacked(runs: Sequence[Leaves]) -> Leaves:
    """Stack the leaves of several runs, batch in front."""
    return [
        (column[0][0], of_array(np.stack([array_of(t) for _, t in column])))
        for column in zip(*runs, strict=True)
    ]


def compare_nested(case: Case, variants: Sequence[Sequence[Array]]) -> None:
    """Compare a vmap inside a vmap with two loops.

    Raises:
        OpCheckError: they differ.
    """
    first = [np.stack(columns) for columns in zip(*variants, strict=True)]
    again = [a[::-1] for a in first]
    given = [of_array(np.stack(pair)) for pair in zip(first, again, strict=True)]
    inner = mapped(case, flat_function(case))
    said = "in_dims=0, nested"
    got = _attempt(case, said, inner, (0,) * len(given), given)
    dims = (0,) * len(given)
    runs = [_single(case, variants, dims, i) for i in range(BATCH)]
    _compare(case, said, got, stacked([stacked(runs), stacked(runs[::-1])]))


def compare_gradients(case: Case, variants: Sequence[Sequence[Array]], dims: Dims) -> None:
    """Compare gradients through a vmap with those of a loop.

    What has no batch gets the sum of what each sample gives it.

    Raises:
        OpCheckError: they differ.
    """
    targets = targets_of(case.sample)
    if not targets or not any(t.requires_grad for t in _results(case, variants[0], targets)[1]):
        return
    given = [
        of_array(columns[0].copy() if dim is None else np.stack(columns))
        for columns, dim in zip(zip(*variants, strict=True), dims, strict=True)
    ]
    inputs = [given[i].requires_grad_() for i in targets]
    said = f"in_dims={dims if None in dims else 0}, under grad"
    got = _attempt(case, said, flat_function(case), dims, given)
    runs = [
        _loop_gradients(case, _chosen(variants, dims, i), targets) for i in range(len(variants))
    ]
    wanted = [
        (name, of_array(np.stack(column) if dims[i] is not None else np.sum(column, axis=0)))
        for i, (name, column) in zip(targets, _columns(case, targets, runs), strict=True)
    ]
    _compare(case, said, _gradients(got, inputs, BATCH), wanted)


def _results(case: Case, arrays: Sequence[Array], targets: Sequence[int]) -> Any:
    tensors = [of_array(a.copy()) for a in arrays]
    inputs = [tensors[i].requires_grad_() for i in targets]
    return inputs, flat_function(case)(*tensors)


def _loop_gradients(case: Case, arrays: Sequence[Array], targets: Sequence[int]) -> list[Array]:
    inputs, results = _results(case, arrays, targets)
    return [array_of(g) for g in _gradients(results, inputs, 0)]


def _gradients(results: Sequence[Tensor], inputs: Sequence[Tensor], batch: int) -> list[Tensor]:
    """Give the gradients of weighted results; each sample of a batch has the same weights."""
    found = [t for t in results if t.requires_grad]
    scale = []
    for t in found:
        one = np.linspace(0.5, 1.5, array_of(t).size // max(batch, 1)).astype(t.dtype)
        whole = np.concatenate([one] * batch) if batch else one
        scale.append(of_array(whole.reshape(array_of(t).shape)))
    return [
        g if g is not None else of_array(np.zeros_like(array_of(x)))
        for g, x in zip(grad(found, inputs, scale, allow_unused=True), inputs, strict=True)
    ]


def _columns(
    case: Case, targets: Sequence[int], runs: Sequence[list[Array]]
) -> Iterator[tuple[str, tuple[Array, ...]]]:
    for k, column in enumerate(zip(*runs, strict=True)):
        yield f"the gradient for {case.sample_name(targets[k])!r}", column


def _attempt(case: Case, said: str, fn: Any, dims: Dims, given: Sequence[Tensor]) -> Any:
    try:
        return mapped(case, fn, dims)(*given)
    except PolyopError as error:
        error.problem = f"{error.problem} (with {said})"
        raise
    except Exception as error:  # an author's rule may raise anything
        raise OpCheckError(
            f"the vmap rule of {case.name} raised {type(error).__name__} with {said}: {error}",
            op=case.op._schema,
            source=case.op.rule_source("vmap"),
            fix="make the rule take this in_dims",
        ) from error


def _compare(case: Case, said: str, got: Sequence[Tensor], wanted: Leaves) -> None:
    named = [(name, t) for (name, _), t in zip(wanted, got, strict=True)]
    compare_leaves(
        named,
        wanted,
        case.tolerance,
        f"{{}} of {case.name} under vmap differs from the loop with {said}",
        op=case.op._schema,
        argument=said,
        declared="what a loop over the batch gives",
        source=case.op.rule_source("vmap"),
        fix="move each batched axis from in_dims[i] to where the rule wants it, and return in "
        "out_dims where the results have it",
    )
