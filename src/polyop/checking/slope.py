"""Slopes: a number made of an operator's results, its gradient, and finite differences.

The results are weighted by random numbers and summed, so one backward gives
every gradient. A result that is not finite has no weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from polyop.checking.law import Case
from polyop.checking.sample import Array, Sample, array_of, leaves_named
from polyop.layers.autograd.api import grad
from polyop.tensor.tensor import Tensor, is_differentiable, of_array

Arrays = list[Array]


@dataclass(frozen=True, slots=True)
class Precision:
    """How far finite differences step, and how far they may be off.

    Attributes:
        step: the first one, relative to the size of what moves.
        others: how many times as far they step if the first does not agree, from near to far.
        rtol: how far a slope may be off, relative to itself.
        floor: the same, relative to the results that move.
        atol: how far two gradients may differ that are found by autograd.
    """

    step: float
    others: tuple[float, ...]
    rtol: float
    floor: float
    atol: float


#: Where all that matters is in double precision, and where it is not.
FINE = Precision(
    1e-5, (1 / 4096, 1 / 512, 1 / 64, 1 / 16, 1 / 4, 1, 4, 16, 64, 256), 1e-4, 1e-9, 1e-6
)
COARSE = Precision(1e-2, (1 / 16, 1 / 4, 1, 4, 16), 3e-2, 1e-5, 3e-2)


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
    def here(self) -> Arrays:
        """What is weighted and summed, at the start."""
        return self.values(self.start)

    @cached_property
    def scale(self) -> Arrays:
        """The weights of that, zero for what is not finite."""
        return [array_of(w) for w in weights([of_array(a) for a in self.here])]

    @cached_property
    def partial(self) -> bool:
        """Whether some of it has no weight."""
        return not all(np.isfinite(wide(a)).all() for a in self.here)

    @cached_property
    def kept(self) -> list[bool]:
        """For each floating result whether it requires grad; all do where none does."""
        sample, _ = self.fresh(self.start)
        asked = [t.requires_grad for t in _floating(self.case, sample.call(self.case.op))]
        return asked if any(asked) else [True] * len(asked)

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
        found = [t for t in _floating(self.case, sample.call(self.case.op)) if t.requires_grad]
        if self.order == 1 or not found:
            return found, inputs
        gradients = grad(found, inputs, weights(found), create_graph=True, allow_unused=True)
        return [g for g in gradients if g is not None], inputs

    def gradients(self) -> list[Array | None]:
        """Give the gradient of the sum for each target, by autograd."""
        return gradients_of(*self.terms(self.start))

    def values(self, arrays: Sequence[Array]) -> Arrays:
        """Give what is weighted and summed, at other values."""
        found = self.terms(arrays)[0] if self.order == 2 else self.plain(arrays)
        return [array_of(t) for t in found]

    def plain(self, arrays: Sequence[Array]) -> list[Tensor]:
        """Give the results that the sum is of, without gradients."""
        result = self.case.run(self.sample.rebuilt([of_array(a) for a in arrays]))
        return self.chosen(_floating(self.case, result))

    def chosen(self, results: Sequence[Tensor]) -> list[Tensor]:
        """Give those of the floating results that the sum is of."""
        return [t for t, kept in zip(results, self.kept, strict=False) if kept]


def _floating(case: Case, result: Any) -> list[Tensor]:
    leaves = leaves_named(result, len(case.op._schema.returns))
    return [t for _, t in leaves if isinstance(t, Tensor) and is_differentiable(t.dtype)]


def gradients_of(terms: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Array | None]:
    """Give the gradient of the weighted sum for each input."""
    pairs = [(t, w) for t, w in zip(terms, weights(terms), strict=True) if t.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    found, scale = zip(*pairs, strict=True)
    given = grad(found, inputs, scale, allow_unused=True)
    return [None if g is None else array_of(g) for g in given]


def weights(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Give the same random weights each time, of both signs; zero for what is not finite."""
    arrays = [array_of(t) for t in tensors]
    made = _weights(tuple([(a.shape, a.dtype) for a in arrays]))
    known = [np.isfinite(a) for a in arrays]
    return [
        of_array(w.copy() if k.all() else np.asarray(np.where(k, w, 0), w.dtype))
        for w, k in zip(made, known, strict=True)
    ]


def weighted(arrays: Sequence[Array], scale: Sequence[Array]) -> float:
    """Give the sum of what has a weight, weighted."""
    return sum(_sum(w, wide(a)) for a, w in zip(arrays, scale, strict=True))


def _sum(weight: Array, array: Array) -> float:
    by = wide(weight)
    return float(np.sum(np.where(by != 0, np.conj(by) * array, 0).real))


def wide(array: Array) -> Array:
    """Give an array in double precision."""
    return array.astype("complex128" if array.dtype.kind == "c" else "float64", copy=False)


#: Weights are whole numbers of parts, as many as the shortest floats can tell.
PARTS = 64


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
    """Give random numbers of both signs, none of them small, that are the same in each dtype."""
    found = rng.uniform(-0.5, 0.5, shape)
    return np.round(found * PARTS) / PARTS + np.copysign(1.0, found)
