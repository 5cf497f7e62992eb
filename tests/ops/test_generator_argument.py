"""Generators as arguments of authors' operators."""

from __future__ import annotations

import numpy as np

import polyop
from polyop import Generator, Tensor, custom_op


def test_a_generator_is_an_annotation() -> None:
    """S18: polyop's own class stands for `Generator`, as NumPy's does."""

    @custom_op("generator_argument::draw", mutates_args=())
    def draw(x: Tensor, generator: Generator | None = None) -> Tensor:
        return x + polyop.rand(2, generator=generator)

    assert str(draw._schema) == (
        "generator_argument::draw(Tensor x, Generator? generator=None) -> Tensor"
    )
    drawn = [draw(polyop.zeros(2), Generator().manual_seed(3)).tolist() for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert draw(polyop.zeros(2), np.random.default_rng(3)).shape == (2,)
