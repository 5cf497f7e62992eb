"""Slopes: a number made of an operator's results, its gradient, and finite differences.

The results are weighted by random numbers and summed, so one backward gives
every gradient; each is then read along single elements, and along one random
direction through all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from polyop.checking.law import Case
from polyop.checking.sample import Array, Sample, array_of, leaves_named
from polyop.layers.autograd.api import grad
from polyop.tensor.tensor import Tensor, is_differentiable, of_array

#: How many single elements of each argument are tried.
MAX_ELEMENTS = 8
#: The same where not the author's sample is tried, but inputs made of it.
FEW_ELEMENTS = 2

Arrays = list[Array]


@dataclass(frozen=True, slots=True)
class Precision:
    """How far finite differences step, and how far they may be off."""

    step: float
    rtol: float
    atol: float


#: Where all that matters is in double precision, and where it is not.
FINE, COARSE = Precision(1e-5, 1e-4, 1e-6), Precision(1e-2, 3e-2, 3e-2)


@dataclass(frozen=True)
class Slope:
    """A weighted sum of results (order 1), or of gradients (order 2), and its gradient.

    `at` says where, if not at the sample.
    """

    case: Case
    sample: Sample
    targets: list[int]
    order: int
    at: str = ""

    @cached_property
    def start(self) -> Arrays:
        """The values at which the slope is taken."""
        return [array_of(t) for t in self.sample.tensors()]

    @cached_property
    def here(self) -> float:
        """The sum at the start."""
        return self.value(self.start)

    @cached_property
    def precision(self) -> Precision:
        """Chosen by the least precise of the results and of what they depend on."""
        tensors = self.sample.tensors()
        values = [*self.plain(self.start), *[tensors[i] for i in self.targets]]
        return FINE if all(t.dtype.name in {"float64", "complex128"} for t in values) else COARSE

    def name(self, i: int) -> str:
        """Name the tensor of that number."""
        return list(self.sample.named())[i][0]

    def fresh(self, arrays: Sequence[Array]) -> tuple[Sample, list[Tensor]]:
        """Give the sample with other values, and the tensors that require grad."""
        made = [of_array(a.copy()) for a in arrays]
        for i in self.targets:
            made[i].requires_grad_()
        return self.sample.rebuilt(made), [made[i] for i in self.targets]

    def terms(self, arrays: Sequence[Array]) -> tuple[list[Tensor], list[Tensor]]:
        """Give the tensors that are weighted and summed, and what they depend on."""
        sample, inputs = self.fresh(arrays)
        found = _differentiable(self.case, sample.call(self.case.op))
        if self.order == 1 or not found:
            return found, inputs
        gradients = grad(found, inputs, weights(found), create_graph=True, allow_unused=True)
        return [g for g in gradients if g is not None], inputs

    def gradients(self) -> list[Array | None]:
        """Give the gradient of the sum for each target, by autograd."""
        return gradients_of(*self.terms(self.start))

    def value(self, arrays: Sequence[Array]) -> float:
        """Give the sum at other values."""
        found, _ = self.terms(arrays) if self.order == 2 else (self.plain(arrays), [])
        return weighted(found)

    def plain(self, arrays: Sequence[Array]) -> list[Tensor]:
        """Give the results that the sum is of, without gradients."""
        result = self.case.run(self.sample.rebuilt([of_array(a) for a in arrays]))
        leaves = leaves_named(result, len(self.case.op._schema.returns))
        return [t for _, t in leaves if isinstance(t, Tensor) and is_differentiable(t.dtype)]


def _differentiable(case: Case, result: Any) -> list[Tensor]:
    leaves = leaves_named(result, len(case.op._schema.returns))
    return [t for _, t in leaves if isinstance(t, Tensor) and t.requires_grad]


def gradients_of(terms: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Array | None]:
    """Give the gradient of the weighted sum for each input."""
    pairs = [(t, w) for t, w in zip(terms, weights(terms), strict=True) if t.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    found, scale = zip(*pairs, strict=True)
    given = grad(found, inputs, scale, allow_unused=True)
    return [None if g is None else array_of(g) for g in given]


def weights(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Give the same random weights each time, of both signs, one for each element."""
    shown = tuple([(array_of(t).shape, t.dtype) for t in tensors])
    return [of_array(w.copy()) for w in _weights(shown)]


def weighted(tensors: Sequence[Tensor]) -> float:
    """Give their sum, weighted."""
    pairs = zip(tensors, weights(tensors), strict=True)
    return float(sum(np.sum((np.conj(array_of(w)) * array_of(t)).real) for t, w in pairs))


@lru_cache(maxsize=16)
def _weights(shown: tuple[tuple[tuple[int, ...], Any], ...]) -> Arrays:
    rng = np.random.default_rng(3)
    made = []
    for shape, dtype in shown:
        w: Any = _signed(rng, shape)
        if dtype.kind == "c":
            w = w + 1j * _signed(rng, shape)
        made.append(np.asarray(w).astype(dtype))
    return made


def _signed(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Give random numbers of both signs, none of them small."""
    found = rng.uniform(-0.5, 0.5, shape)
    return found + np.copysign(1.0, found)


# -- readings -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction through an array; `place` is the one element that it moves, if so."""

    place: tuple[int, ...] | None
    by: Array


@dataclass(frozen=True, slots=True)
class Reading:
    """Along one direction: what autograd says, and what finite differences say."""

    place: tuple[int, ...] | None
    told: float
    seen: float
    wrong: bool


def directions(array: Array, most: int = MAX_ELEMENTS) -> Iterator[Direction]:
    """Give directions: single elements, then all elements at once."""
    rng = np.random.default_rng(5)
    parts = [1.0, 1j] if array.dtype.kind == "c" else [1.0]
    picks = rng.choice(array.size, min(array.size, most), replace=False)
    for flat in sorted(int(i) for i in picks):
        place = tuple(int(i) for i in np.unravel_index(flat, array.shape))
        for part in parts:
            one = np.zeros(array.shape, array.dtype)
            one[place] = part
            yield Direction(place, one)
    if array.size > 1:
        whole: Any = rng.uniform(-1.0, 1.0, array.shape)
        yield Direction(None, np.asarray(whole).astype(array.dtype))


#: A step that even eight bits see, and the share of results that follow a small one if they round.
LARGE_STEP, FEW = 0.05, 0.2


def rounds(slope: Slope, target: int) -> bool:
    """Tell whether the kernel rounds so coarsely that finite differences see only stairs.

    Then nearly all results stay as they are at a small step, and move at a
    large one. What ignores its input stays at both; a kink stays on one side.
    """
    rng = np.random.default_rng(5)
    array = slope.start[target]
    way: Any = rng.uniform(-1.0, 1.0, array.shape)

    def moved(distance: float) -> int:
        arrays = [*slope.start]
        arrays[target] = np.asarray(array + distance * way, array.dtype)
        pairs = zip(slope.plain(arrays), slope.plain(slope.start), strict=True)
        return sum(int(np.count_nonzero(array_of(a) != array_of(b))) for a, b in pairs)

    return moved(LARGE_STEP) > 0 and moved(slope.precision.step) <= FEW * moved(LARGE_STEP)


def read(slope: Slope, target: int, told: Array | None, direction: Direction) -> Reading:
    """Compare a gradient with finite differences along one direction."""
    says = 0.0 if told is None else float(np.sum((np.conj(told) * direction.by).real))
    return reading(slope, says, {target: direction.by}, direction.place)


#: By the number of a tensor: how it moves.
Moves = Mapping[int, Array]


def reading(
    slope: Slope, says: float, moves: Moves, place: tuple[int, ...] | None = None
) -> Reading:
    """Compare what is said of the slope with finite differences, while some tensors move."""
    precision, step = slope.precision, slope.precision.step
    seen, bend = difference(slope, moves, step)
    room = precision.atol + precision.rtol * max(abs(seen), abs(says))
    # Where the slope is another on each side there is a kink, and no gradient to compare.
    kink = bend > 10 * room + 2 * abs(seen)
    wrong = bool(np.isfinite(seen) and not kink and not abs(says - seen) <= room)
    if wrong:
        # Other steps tell how far off the differences themselves are: where the function
        # bends, and where the kernel computes in less precision than its arguments have.
        others = [difference(slope, moves, step * by)[0] for by in (1 / 4, 3, 10)]
        noise = max(abs(other - seen) for other in others)
        wrong = not min(abs(says - other) for other in (seen, *others)) <= room + noise
    return Reading(place, says, seen, wrong)


def difference(slope: Slope, moves: Moves, step: float) -> tuple[float, float]:
    """Give the slope by finite differences, and how much it is another on each side."""
    start = slope.start

    def at(distance: float) -> float:
        moved = [*start]
        for i, by in moves.items():
            moved[i] = np.asarray(start[i] + distance * by, start[i].dtype)
        return slope.value(moved)

    before, after = at(-step), at(step)
    bend = abs((after - slope.here) - (slope.here - before)) / step
    return (after - before) / (2 * step), bend


#: The share of a step that is tiny, and how far slopes may be off that are one.
TINY, ALIKE = 1e-3, 0.1


def is_smooth(slope: Slope, target: int) -> bool:
    """Tell whether small and tiny steps see one slope, and one that is not flat.

    On stairs, which are flat, a gradient may be given for something else on purpose.
    """
    way: Any = np.random.default_rng(5).uniform(-1.0, 1.0, slope.start[target].shape)
    step = slope.precision.step
    near, tiny = (difference(slope, {target: way}, by)[0] for by in (step, step * TINY))
    return tiny != 0 and abs(near - tiny) <= ALIKE * abs(tiny)
