"""Kernels in C serve tensors over every library, as kernels in Python do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop.checking.find import load

pairwise: Any = load(str(Path(__file__).parents[2] / "examples/pairwise/pairwise.py")).pairwise
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
EXPECTED = np.square(X[:, None] - Y).sum(-1)


@pytest.mark.parametrize(
    "make",
    [torch.from_numpy, jnp.asarray, lambda x: da.from_array(x, chunks=(2, 3))],
    ids=["torch", "jax", "dask"],
)
def test_tensors_over_other_libraries(make: Any) -> None:
    """S66, S67: a kernel of a C library gets their data, and gives tensors over the library."""
    x, y = polyop.from_array(make(X)), polyop.from_array(make(Y))
    found = pairwise(x, y)
    assert type(found.payload) is type(x.payload)
    assert found.payload.library is x.payload.library
    np.testing.assert_allclose(found.numpy(), EXPECTED, rtol=1e-4)
    slope = polyop.func.grad(lambda x: pairwise(x, y).sum())(x)
    np.testing.assert_allclose(slope.numpy(), 2 * (4 * X - Y.sum(0)), rtol=1e-4, atol=1e-5)
    rows = polyop.vmap(lambda row: pairwise(row.unsqueeze(0), y))(x)
    np.testing.assert_allclose(rows.numpy()[:, 0], EXPECTED, rtol=1e-4)


def test_the_kernel_in_c_agrees_with_what_it_means() -> None:
    """S67: what C computes is what the author's function in NumPy computes, with loops and none."""
    for a, b in [((5, 3), (19, 3)), ((2, 1, 4, 3), (3, 2, 3)), ((0, 3), (2, 3)), ((2, 0), (3, 0))]:
        x, y = polyop.from_numpy(rng.normal(size=a)), polyop.from_numpy(rng.normal(size=b))
        found, meant = pairwise(x, y), pairwise.__wrapped__(x, y)
        assert found.shape == meant.shape
        np.testing.assert_allclose(found.numpy(), meant.numpy(), rtol=1e-12)
