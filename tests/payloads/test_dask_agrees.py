"""Dask's blocks and recipes give what NumPy gives, however an array is cut."""

from __future__ import annotations

from typing import Any

import dask.array
import numpy as np
import pytest

import polyop
from polyop import linalg
from polyop.errors import OutOfRangeError


def cut(x: Any, chunks: Any) -> Any:
    """Make a tensor over an array of Dask in chunks."""
    return polyop.from_array(dask.array.from_array(np.asarray(x), chunks=chunks))


@pytest.mark.parametrize("chunks", [1, 2, -1])
@pytest.mark.parametrize("upper", [False, True])
def test_cholesky_gives_the_triangle_that_is_asked_for(chunks: int, upper: bool) -> None:
    """S66: the factor, and its gradient, of one matrix; the lower triangle is read, as by NumPy."""
    a = np.array([[4.0, 2.0], [2.0, 5.0]])
    found = linalg.cholesky(cut(np.tril(a), chunks), upper=upper).numpy()
    lower = np.linalg.cholesky(a)
    np.testing.assert_allclose(found, lower.T if upper else lower)

    def loss(x: Any) -> Any:
        return (linalg.cholesky(x, upper=upper) ** 2)[0].sum()

    found = polyop.func.grad(loss)(cut(a, chunks)).numpy()
    np.testing.assert_allclose(found, polyop.func.grad(loss)(polyop.from_numpy(a)).numpy())


@pytest.mark.parametrize("a", [[[1e-20, 1.0], [1.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
@pytest.mark.parametrize("chunks", [1, 2])
def test_equations_are_solved_with_pivots_of_all_blocks(a: Any, chunks: int) -> None:
    """S66: a small pivot in one block is exchanged for one in another."""
    b = np.array([1.0, 2.0])
    found = linalg.solve(cut(a, chunks), cut(b, chunks)).numpy()
    np.testing.assert_allclose(found, np.linalg.solve(a, b), atol=1e-12)
    np.testing.assert_allclose(linalg.inv(cut(a, chunks)).numpy(), np.linalg.inv(a), atol=1e-12)


D = np.arange(12.0).reshape(3, 4)
#: Ways to choose by one index of a recipe.
CHOICES = {
    "a list": lambda x, i: x[i],
    "a key of NumPy": lambda x, i: x[np.array(i)],
    "a second axis": lambda x, i: x.T[:, i].T,
    "a recipe": lambda x, i: x[cut(i, 1)],
    "take": lambda x, i: polyop.take(x, cut(i, -1), axis=0),
    "index_select": lambda x, i: polyop.index_select(x, 0, polyop.tensor(i)),
}


@pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("chunks", [1, 2, -1])
def test_an_index_out_of_range_is_told(choose: Any, chunks: int) -> None:
    """S66: what Dask would pass over in silence raises when it is computed; the rest is chosen."""
    np.testing.assert_array_equal(choose(cut(D, chunks), [2, -3, 0]).numpy(), D[[2, -3, 0]])
    for wrong in ([3, 0], [0, -4], [7]):
        with pytest.raises(OutOfRangeError, match="3|4|7"):
            choose(cut(D, chunks), wrong).numpy()


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("chunks", [1, 2, (1, 3, 2)])
def test_the_first_of_equals_is_found_across_blocks(name: str, chunks: Any) -> None:
    """S66: without an axis it is the first in the order of the elements, not of the blocks."""
    a = np.random.default_rng(0).integers(0, 3, (4, 3, 5))
    for keepdims in (False, True):
        found = getattr(polyop, name)(cut(a, chunks), keepdims=keepdims).numpy()
        np.testing.assert_array_equal(found, getattr(np, name)(a, keepdims=keepdims))


@pytest.mark.parametrize("shape", [(), (2, 0), (0,), (2, 3)])
def test_places_in_a_sorted_vector_have_the_shape_of_what_is_searched(shape: Any) -> None:
    """S66: also without axes, and without elements."""
    row, x = np.array([0.0, 1.0, 2.0]), np.full(shape, 1.5)
    found = polyop.searchsorted(cut(row, 2), cut(x, -1))
    np.testing.assert_array_equal(found.numpy(), np.searchsorted(row, x))


def test_the_greatest_of_no_rows() -> None:
    """S66: a stack of no matrices has no ranks, and no greatest elements, as in NumPy."""
    x = np.zeros((0, 2, 3))
    assert linalg.matrix_rank(cut(x, -1)).numpy().shape == (0,)
    assert polyop.max(cut(x, -1), axis=-1).numpy().shape == (0, 2)
