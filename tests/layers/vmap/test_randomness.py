"""The laws of random operators inside vmap (S160)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.errors import VmapError
from polyop.layers.vmap import vmap
from polyop.ops.elementwise import add
from polyop.ops.generator import Generator, manual_seed
from polyop.ops.random import bernoulli, rand, rand_like, uniform_
from polyop.tensor.tensor import Tensor, of_array

X = np.zeros((4, 5))

CALLS = [
    lambda a: rand_like(a),
    lambda a: rand(5),
    lambda a: bernoulli(of_array(np.full(50, 0.5))),
    lambda a: bernoulli(add(a, 0.5)),
    lambda a: uniform_(add(a, 0.0)),
]


@pytest.mark.parametrize("call", CALLS)
def test_error_is_the_default(call: Any) -> None:
    """S160: a random operator raises, and the error says what to pass."""
    with pytest.raises(VmapError, match='randomness="different"'):
        vmap(call)(of_array(X.copy()))


@pytest.mark.parametrize("call", CALLS)
def test_same_draws_once(call: Any) -> None:
    """S160: with "same", all samples get the same numbers."""
    got = vmap(call, randomness="same")(of_array(X.copy())).numpy()
    assert got.shape[0] == 4
    assert (got == got[0]).all()
    assert len(np.unique(got[0])) > 1 or got.shape[1] == 5


@pytest.mark.parametrize("call", [CALLS[i] for i in (0, 1, 2, 4)])
def test_different_draws_for_each_sample(call: Any) -> None:
    """S160: with "different", each sample gets numbers of its own."""
    got = vmap(call, randomness="different")(of_array(X.copy())).numpy()
    assert got.shape[0] == 4
    assert len({row.tobytes() for row in got}) == 4


def test_nested_levels_each_say_how() -> None:
    """S160: an inner "same" shares within an outer "different"."""
    x = of_array(np.zeros((2, 3)))
    inner = vmap(lambda b: rand(4), randomness="same")
    got = vmap(inner, randomness="different")(x).numpy()
    assert got.shape == (2, 3, 4)
    assert (got[:, :1] == got).all()
    assert (got[0] != got[1]).any()


def test_draws_come_from_the_given_generator() -> None:
    """S160: seeds repeat what is drawn inside."""

    def draw(a: Tensor, g: Any = None) -> Tensor:
        return rand(3, generator=g)

    runs = []
    for _ in range(2):
        manual_seed(7)
        runs.append(vmap(draw, randomness="different")(of_array(X)).numpy())
    np.testing.assert_array_equal(runs[0], runs[1])
    a = vmap(lambda x: draw(x, Generator(1)), randomness="different")(of_array(X)).numpy()
    assert len({row.tobytes() for row in a}) == 4


def test_different_draws_cannot_be_written_to_one_place() -> None:
    """S159: a tensor that is the same for all samples takes no draws that differ."""
    y = of_array(np.zeros(3))
    with pytest.raises(VmapError, match="writes argument 'x'"):
        vmap(lambda a: uniform_(y), randomness="different")(of_array(X))
    assert not y.numpy().any()
