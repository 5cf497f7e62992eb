"""Searching a batch of sorted vectors, however long the batch is (S206)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.errors import ArgumentError
from polyop.func import vmap
from polyop.graph import make_fx
from polyop.tensor.tensor import of_array

NAN = float("nan")


def rows(n: int, k: int, seed: int = 0) -> Tensor:
    """Give sorted vectors in which elements come twice; the last one is NaN."""
    found = np.random.default_rng(seed).integers(-3, 4, (n, k)).astype(float)
    found[:, -1:] = NAN
    return of_array(np.sort(found, 1))


def wanted_of(n: int, shape: tuple[int, ...]) -> Tensor:
    """Give numbers to look for, with NaN among them."""
    found = np.random.default_rng(1).integers(-4, 5, (n, *shape)).astype(float)
    found.reshape(-1)[:1] = NAN
    return of_array(found)


def searched(side: str, a: Tensor, b: Tensor) -> Any:
    return vmap(partial(polyop.searchsorted, side=side))(a, b)


def looped(side: Any, a: Tensor, b: Tensor) -> Any:
    return [np.searchsorted(x, y, side).tolist() for x, y in zip(a.numpy(), b.numpy(), strict=True)]


@pytest.mark.parametrize("shape", [(), (4,), (3, 2), (0,)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_trace_holds_for_all_sizes(side: str, shape: tuple[int, ...]) -> None:
    """S206: symbolic numbers of vectors, and of their elements, give what NumPy finds in each."""
    fn = partial(searched, side)
    traced = make_fx(fn, tracing_mode="symbolic")(rows(7, 5), wanted_of(7, shape))
    for n, k in ((7, 5), (6, 9), (5, 8)):
        a, b = rows(n, k, seed=n), wanted_of(n, shape)
        found = traced(a, b)
        assert found.dtype == np.int64
        assert found.tolist() == fn(a, b).tolist() == looped(side, a, b)


def test_an_order_is_one_of_the_row() -> None:
    """S206: so do vectors that are sorted by an order of their own."""
    fn = vmap(lambda a, b, order: polyop.searchsorted(a, b, sorter=order))
    a = of_array(np.random.default_rng(2).normal(size=(7, 5)))
    b, order = of_array(np.random.default_rng(3).normal(size=(7, 4))), polyop.argsort(a)
    traced = make_fx(fn, tracing_mode="symbolic")(a, b, order)
    assert traced(a, b, order).tolist() == fn(a, b, order).tolist()
    assert traced(a, b, order).tolist() == looped("left", polyop.sort(a), b)


def test_an_exported_program_takes_any_batch() -> None:
    """S206: a dynamic batch is one."""
    fn = partial(searched, "right")
    dim = polyop.export.Dim("n")
    program = polyop.export.export(
        fn, (rows(3, 5), wanted_of(3, (4,))), dynamic_shapes=({0: dim}, {0: dim})
    )
    a, b = rows(8, 5), wanted_of(8, (4,))
    assert program.module()(a, b).tolist() == looped("right", a, b)


def test_what_cannot_be_searched_is_refused() -> None:
    """S206: an order of another length, or a vector with more axes, is no more so in a trace."""
    a, order = rows(7, 5), of_array(np.zeros((7, 3), int))
    fn = vmap(lambda a, order: polyop.searchsorted(a, a, sorter=order))
    matrices = vmap(polyop.searchsorted)
    for traced in (fn, make_fx(fn, tracing_mode="symbolic")):
        with pytest.raises(ArgumentError, match="searchsorted"):
            traced(a, order)
    for traced in (matrices, make_fx(matrices, tracing_mode="symbolic")):
        with pytest.raises(ArgumentError, match="sorted vector"):
            traced(polyop.ones((7, 5, 3)), a)


def test_no_vectors() -> None:
    """S206: a batch of none has a result of its shape."""
    found = searched("left", polyop.zeros((0, 3)), polyop.zeros((0, 2)))
    assert found.shape == (0, 2)
    assert found.dtype == np.int64
