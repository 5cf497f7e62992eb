"""Searching and choosing along an axis: each library gives NumPy's answer, or its error."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tests.payloads.pair import tensor_of

import polyop
from polyop.errors import OutOfRangeError

X = np.array([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])


@pytest.mark.parametrize("indices", [[[-3, 2, -1, 0]], [[0, 1], [-2, -3]]])
def test_negative_indices_count_from_the_end(library: Any, indices: Any) -> None:
    """S66: indices that are in range, broadcast along the other axes."""
    given = np.array(indices)
    found = polyop.take_along_axis(tensor_of(library, X), tensor_of(library, given), axis=1)
    np.testing.assert_array_equal(found.numpy(), np.take_along_axis(X, given, 1))


@pytest.mark.parametrize("wrong", [-4, -6, 3, 5])
def test_an_index_out_of_range_along_an_axis_is_told(library: Any, wrong: int) -> None:
    """S66: it is an error, never another element."""
    given = tensor_of(library, np.array([[0, wrong]]))
    with pytest.raises(OutOfRangeError):
        polyop.take_along_axis(tensor_of(library, X), given, axis=1).numpy()


def test_an_index_out_of_range_in_a_trace_gives_nan() -> None:
    """S66: where JAX traces, what is chosen there is NaN."""

    def chosen(x: Any, i: Any) -> Any:
        return polyop.to_array(
            polyop.take_along_axis(polyop.from_array(x), polyop.from_array(i), axis=0)
        )

    found = jax.jit(chosen)(jnp.array([10.0, 20.0, 30.0]), jnp.array([-4, 0, -3, 3]))
    np.testing.assert_array_equal(found, [np.nan, 10, 10, np.nan])


def test_an_index_out_of_range_in_a_batch_of_torch_is_told() -> None:
    """S66: `torch.vmap` has no data to look at; the choice itself raises."""

    def chosen(x: Any, i: Any) -> Any:
        return polyop.to_array(
            polyop.take_along_axis(polyop.from_array(x), polyop.from_array(i), axis=0)
        )

    x, i = torch.tensor(X), torch.tensor([[0, -1], [2, 1]])
    assert torch.vmap(chosen)(x, i).tolist() == [[10, 30], [60, 50]]
    with pytest.raises(Exception, match="out of bounds"):
        torch.vmap(chosen)(x, i + 2)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_nan_stands_last_in_a_sorted_vector(library: Any, side: str, dtype: str) -> None:
    """S66: places among numbers, infinities and NaN."""
    row = np.array([-np.inf, 0.0, 1.0, np.inf, np.nan, np.nan])
    x = np.array([[-np.inf, 0.5, 1.0], [3.0, np.inf, np.nan]])
    if dtype == "int64":
        row, x = np.array([0, 1, 1, 3]), np.array([[1, 5, -1]])
    row, x = row.astype(dtype), x.astype(dtype)
    for row in (row, row[:4]):  # with NaN, and without
        found = polyop.searchsorted(tensor_of(library, row), tensor_of(library, x), side=side)
        np.testing.assert_array_equal(found.numpy(), np.searchsorted(row, x, side))


@pytest.mark.parametrize("descending", [False, True])
def test_zeros_of_both_signs_keep_their_order(library: Any, descending: bool) -> None:
    """S66: they tie, and a stable order leaves them as they are, as it does over NumPy."""
    given = np.array([0.0, 1, -0.0, 0.0, -1, -0.0])
    found = polyop.sort(tensor_of(library, given), descending=descending).numpy()
    wanted = polyop.sort(polyop.from_numpy(given), descending=descending).numpy()
    assert [str(n) for n in found] == [str(n) for n in wanted]
    order = polyop.argsort(tensor_of(library, given), descending=descending).numpy()
    assert [str(n) for n in found] == [str(n) for n in given[order]]
