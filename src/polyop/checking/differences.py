"""Finite differences: how a slope is seen, along single elements and along many, to compare.

Differences are taken element by element before they are summed, so that small
results count beside large ones, and steps are measured by the size of what
moves. Where the first step does not agree with what is said, others tell how
far off the differences themselves are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyop.checking.sample import Array, array_of
from polyop.checking.slope import Arrays, Slope, weighted, wide
from polyop.ops.dtypes import finfo

#: How many single elements of each argument are tried.
MAX_ELEMENTS = 8
#: The same where not the author's sample is tried, but inputs made of it.
FEW_ELEMENTS = 2

#: Elements are moved together that are of one size up to this factor, in this many groups.
ALIKE_SIZES, MOST_GROUPS = 1e3, 3
#: No element counts as smaller, relative to the usual one of its array, and at all.
SMALL, SMALLEST = 1e-8, 1e-100


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction through an array; `place` is the one element that it moves, if so.

    `size` is that of what moves, where `by` does not have it.
    """

    place: tuple[int, ...] | None
    by: Array
    size: float = 1.0


def sizes(array: Array) -> Any:
    """Give the size of each element, by which steps are measured.

    One that is zero, or small beside the others, has their usual size, but none above one.
    """
    found = np.abs(wide(array))
    known = found[np.isfinite(found) & (found > 0)]
    usual = max(float(np.median(known)), SMALLEST) if known.size else 1.0
    small = np.maximum(found, min(usual, 1.0))
    return np.where(np.isfinite(found), np.where(found >= SMALL * usual, found, small), usual)


def through(array: Array, seed: int = 5) -> Array:
    """Give a random direction through all elements that are finite, each moved by its size."""
    way: Any = np.random.default_rng(seed).uniform(-1.0, 1.0, array.shape)
    moved = np.where(np.isfinite(wide(array)), way * sizes(array), 0)
    return np.asarray(moved).astype(array.dtype)


def directions(array: Array, most: int = MAX_ELEMENTS) -> Iterator[Direction]:
    """Give directions: single elements, then all elements of one size at once."""
    rng = np.random.default_rng(5)
    parts = [1.0, 1j] if array.dtype.kind == "c" else [1.0]
    size = sizes(array)
    finite = np.flatnonzero(np.isfinite(wide(array)))
    for flat in sorted(int(i) for i in rng.choice(finite, min(finite.size, most), replace=False)):
        place = tuple(int(i) for i in np.unravel_index(flat, array.shape))
        for part in parts:
            one = np.zeros(array.shape, array.dtype)
            one[place] = part
            yield Direction(place, one, float(size[place]))
    if finite.size > 1:
        whole, largest = through(array), size.max(where=np.isfinite(wide(array)), initial=0.0)
        group = np.minimum(np.log(largest / size) // np.log(ALIKE_SIZES), MOST_GROUPS - 1)
        for k in sorted(set(group.flat)):
            yield Direction(None, np.asarray(np.where(group == k, whole, 0), array.dtype))


# -- differences --------------------------------------------------------------

#: By the number of a tensor: how it moves.
Moves = Mapping[int, Array]


@dataclass(frozen=True, slots=True)
class Difference:
    """What is weighted and summed, a step before the start and a step after it."""

    slope: Slope
    before: Arrays
    after: Arrays
    step: float

    def seen(self) -> float:
        """Give the slope; nan where a result is finite at the start only, or has another shape."""
        shapes = [w.shape for w in self.slope.scale]
        if any([a.shape for a in side] != shapes for side in (self.before, self.after)):
            return float("nan")
        pairs = zip(self._before, self._after, strict=True)
        found = weighted([a - b for b, a in pairs], self.slope.scale) / (2 * self.step)
        return found if np.isfinite(found) else float("nan")

    def bend(self) -> float:
        """Give how much the slope is another on each side."""
        rows = zip(self._before, map(wide, self.slope.here), self._after, strict=True)
        return abs(weighted([(a - h) - (h - b) for b, h, a in rows], self.slope.scale)) / self.step

    def moved(self) -> float:
        """Give the sum of the results that move, without signs."""
        return self._gross([a != b for b, a in zip(self.before, self.after, strict=True)])

    def gross(self) -> float:
        """Give the sum of what moves, without signs; of all results if none does."""
        return self.moved() or self._gross([np.ones(a.shape, bool) for a in self.after])

    def noise(self) -> float:
        """Give how far rounding of the results may move the slope."""
        return ROUNDINGS * max(map(_epsilon, self.after), default=0.0) * self.moved() / self.step

    @property
    def epsilon(self) -> float:
        """The distance of neighbouring numbers near one, in the results' dtypes."""
        return max([finfo(a.dtype).eps for a in self.after], default=0.0)

    @property
    def _before(self) -> list[Array]:
        return [wide(a) for a in self.before]

    @property
    def _after(self) -> list[Array]:
        return [wide(a) for a in self.after]

    def _gross(self, masks: Sequence[Any]) -> float:
        scale = [np.abs(wide(w)) for w in self.slope.scale]
        pairs = zip(self._after, masks, strict=True)
        return weighted([np.where(mask, np.abs(a), 0) for a, mask in pairs], scale)


#: How many roundings the last digits of a result may have seen.
ROUNDINGS = 4.0
#: Of how many roundings what is said of a slope may be made, in numbers near one.
ROUNDINGS_TOLD = 64.0


def _epsilon(array: Array) -> float:
    """Give the distance of neighbouring numbers; single ones where all results are such."""
    single = array.dtype.itemsize > 4 and bool((array.astype("complex64") == array).all())
    return finfo(np.dtype("float32") if single else array.dtype).eps


def difference(slope: Slope, moves: Moves, step: float) -> Difference:
    """Step both ways from the start."""
    start = slope.start

    def at(distance: float) -> Arrays:
        moved = [*start]
        for i, by in moves.items():
            moved[i] = np.asarray(start[i] + distance * by, start[i].dtype)
        return slope.values(moved)

    return Difference(slope, at(-step), at(step), step)


# -- readings -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """Along one direction: what autograd says, and what finite differences say."""

    place: tuple[int, ...] | None
    told: float
    seen: float
    wrong: bool


def read(slope: Slope, target: int, told: Array | None, direction: Direction) -> Reading:
    """Compare a gradient with finite differences along one direction."""
    by = direction.by
    known = np.zeros_like(by) if told is None else wide(told)
    if slope.partial:  # zero times what is not finite says nothing
        by = np.asarray(np.where(np.isfinite(known), by, 0), by.dtype)
        if not by.any():
            return Reading(direction.place, float("nan"), float("nan"), False)
    along = np.where(by != 0, np.conj(known) * wide(by), 0).real
    says, gross = float(np.sum(along)), float(np.sum(np.abs(along)))
    place, size = direction.place, direction.size
    return reading(slope, says, {target: by}, place=place, size=size, gross=gross)


def reading(
    slope: Slope,
    says: float,
    moves: Moves,
    *,
    place: tuple[int, ...] | None = None,
    size: float = 1.0,
    gross: float = 0.0,
) -> Reading:
    """Compare what is said of the slope with finite differences, while some tensors move.

    Args:
        slope: what moves.
        says: what is said of it.
        moves: how tensors move.
        place: the one element that does, if so.
        size: what steps are relative to.
        gross: what is said of each element, summed without signs.
    """
    precision, step = slope.precision, slope.precision.step * size
    seen = difference(slope, moves, step).seen()
    if abs(says - seen) <= precision.rtol * max(abs(seen), abs(says)):
        return Reading(place, says, seen, False)
    tried = [difference(slope, moves, step * by) for by in precision.others]
    tried = [one for one in tried if np.isfinite(one.seen())]
    if not tried:
        return Reading(place, says, float("nan"), False)
    # Near steps are off by rounding, and far ones where the function bends.
    found = [one.seen() for one in tried]
    off = [one.noise() + _apart(found, k) for k, one in enumerate(tried)]
    if _turns(tried):
        return Reading(place, says, float("nan"), False)
    best = _best(found, off)
    one, seen = tried[best], found[best]
    way = sum(float(np.sum(np.abs(wide(by)))) for by in moves.values())
    room = precision.rtol * max(abs(seen), abs(says))
    room += precision.floor * (one.gross() / size + gross)
    room += ROUNDINGS_TOLD * one.epsilon * max(way, gross)
    # Where the slope is another on each side there is a kink, and no gradient to compare.
    kink = one.bend() > 10 * (room + off[best]) + 2 * abs(seen)
    near = abs(says - seen) <= room + 2 * off[best] or min(abs(says - s) for s in found) <= room
    return Reading(place, says, seen, not near and not kink)


def _best(found: Sequence[float], off: Sequence[float]) -> int:
    """Choose the slope that is least off, of those that the ones of nearer steps do not deny."""

    def denied(k: int) -> bool:
        return any(abs(found[j] - found[k]) > DENIED * (off[j] + off[k]) for j in range(k))

    return min((k for k in range(len(found)) if not denied(k)), key=off.__getitem__)


def _turns(tried: Sequence[Difference]) -> bool:
    """Tell whether results go up and down, or jump, within the nearest step.

    Then no step tells a slope: the two nearest see others, and move much of the results.
    """
    if len(tried) == 1:
        return False
    near, next_one = tried[:2]
    slopes, apart = (near.seen(), next_one.seen()), abs(near.seen() - next_one.seen())
    clear = apart > DENIED * (near.noise() + next_one.noise())
    much = abs(slopes[0]) * near.step > MUCH * near.moved()
    return clear and much and apart > TURNED * max(map(abs, slopes))


#: By how many times what they are off two slopes deny each other; the share of two slopes that
#: they differ by where the function turns; the share of the results that is moved then.
DENIED, TURNED, MUCH = 3.0, 0.25, 1e-3


def _apart(found: Sequence[float], k: int) -> float:
    """Give how far a slope is from its neighbours."""
    return max([abs(found[k] - found[j]) for j in (k - 1, k + 1) if 0 <= j < len(found)], default=0)


# -- stairs -------------------------------------------------------------------

#: Steps that even eight bits see, and whole numbers; the share of results that follow a small one
#: if they round.
LARGE_STEPS, FEW = (0.05, 0.5, 2.0), 0.2


def rounds(slope: Slope, target: int) -> bool:
    """Tell whether the kernel rounds so coarsely that finite differences see only stairs.

    Then nearly all results stay as they are at a small step, here and beyond a
    large one, and move at the large one. What ignores its input stays at all;
    a kink stays on one side.
    """
    array = slope.start[target]
    near = through(array) * slope.precision.step
    far = through(array) * np.maximum(1, 1 / sizes(array))

    def at(by: Array) -> Arrays:
        arrays = [*slope.start]
        arrays[target] = np.asarray(array + by, array.dtype)
        return [array_of(t) for t in slope.plain(arrays)]

    here = at(np.zeros_like(array))
    for large in LARGE_STEPS:
        try:
            there, beyond = at(far * large), at(far * large + near)
        except Exception:  # no further: the operator refuses it
            return False
        moved = _moved(here, there)
        if moved:
            return max(_moved(here, at(near)), _moved(there, beyond)) <= FEW * moved
    return False


def _moved(before: Arrays, after: Arrays) -> int:
    """Count the results that are others; those that are no numbers do not count."""
    found = 0
    for a, b in zip(before, after, strict=False):
        if a.shape != b.shape:
            return 0
        found += int(np.count_nonzero((a != b) & np.isfinite(wide(a)) & np.isfinite(wide(b))))
    return found


#: The share of a step that is tiny, and how far slopes may be off that are one.
TINY, ALIKE = 1e-3, 0.1


def is_smooth(slope: Slope, target: int) -> bool:
    """Tell whether small and tiny steps see one slope, and one that is not flat.

    On stairs, which are flat, a gradient may be given for something else on purpose.
    """
    moves = {target: through(slope.start[target])}
    step = slope.precision.step
    near, tiny = (difference(slope, moves, by).seen() for by in (step, step * TINY))
    return tiny != 0 and abs(near - tiny) <= ALIKE * abs(tiny)
