"""Random numbers over arrays that are recipes: drawn by the call, and not by who looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.ops.generator import Generator

DRAWS: dict[str, Callable[..., Tensor]] = {
    "normal_": lambda x, **named: x.clone().normal_(**named),
    "uniform_": lambda x, **named: x.clone().uniform_(**named),
    "bernoulli": polyop.bernoulli,
}


def recipe() -> Tensor:
    return polyop.from_array(da.full(64, 0.5, chunks=16))


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_recipe_draws_the_same_each_time(draw: Any) -> None:
    """Two looks see one tensor; two calls, and two seeds, differ."""
    x = recipe()
    one, other = draw(x), draw(x)
    assert one.tolist() == one.tolist() == (one * 1.0).tolist()
    assert one.tolist() != other.tolist()
    assert np.all((one - one).numpy() == 0)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_recipe_follows_its_generator(draw: Any) -> None:
    """The default one, one of ours, and NumPy's own."""

    def drawn(**named: Any) -> list[float]:
        polyop.manual_seed(5)
        return draw(recipe(), **named).tolist()

    assert drawn() == drawn()
    for make in (Generator, np.random.default_rng):
        assert drawn(generator=make(3)) == drawn(generator=make(3)) != drawn(generator=make(4))
