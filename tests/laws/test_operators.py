"""Gradients of every order of a map of each operator, against the loop."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from tests.laws.payloads import MAKERS
from tests.laws.transforms import close
from tests.ops.cases import SMOOTH, Case, arrays_in

import polyop
from polyop import Tensor, tree
from polyop.dispatch.bind import dispatch
from polyop.errors import MissingGradientError
from polyop.func import grad, vmap

make = MAKERS["numpy"]
SAMPLES = 3


def weighed(out: Any) -> Any:
    """Give a number that depends on each floating-point result."""
    leaves = [t for t in tree.leaves(out) if isinstance(t, Tensor)]
    parts = [t for t in leaves if t.dtype == np.float64]
    for t in leaves:
        if t.dtype == np.complex128:
            parts += [polyop.real(t), polyop.imag(t) * 2.0]
    return sum(t.sin().sum() for t in parts)


def again(f: Any, places: tuple[int, ...]) -> Any:
    """Give a number that depends on each gradient."""
    return lambda *xs: sum(g.sin().sum() for g in grad(f, places)(*xs))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_gradients_of_a_map_are_those_of_the_loop(case: Case) -> None:
    """S133, S134, S157: whatever is mapped, first and second gradients are the loop's."""
    sets = [case.values(seed) for seed in range(SAMPLES)]
    places = [i for i in arrays_in(sets[0], case) if sets[0][i].dtype == np.float64]
    for count in range(1, len(places) + 1):
        for mapped in itertools.combinations(places, count):
            _compare(case, sets, places, mapped)


def _compare(case: Case, sets: Any, places: list[int], mapped: tuple[int, ...]) -> None:
    values = [make(np.stack([s[i] for s in sets]) if i in mapped else sets[0][i]) for i in places]

    def call(*xs: Tensor) -> Any:
        full = [make(a) if isinstance(a, np.ndarray) else a for a in sets[0]]
        for i, x in zip(places, xs, strict=True):
            full[i] = x
        return dispatch(case.op, full)

    def whole(*xs: Tensor) -> Any:
        return weighed(vmap(call, tuple(0 if i in mapped else None for i in places))(*xs))

    def loop(*xs: Tensor) -> Any:
        pairs = list(zip(xs, places, strict=True))
        return sum(weighed(call(*[x[k] if i in mapped else x for x, i in pairs]))
                   for k in range(SAMPLES))  # fmt: skip

    every = tuple(range(len(places)))
    for f, g in ((whole, loop), (again(whole, every), again(loop, every))):
        try:
            expected = grad(g, every)(*values)
        except MissingGradientError:
            return
        for a, b in zip(grad(f, every)(*values), expected, strict=True):
            close(a.numpy(), b.numpy())
