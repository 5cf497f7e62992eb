"""Values that a later value of the same write replaces: they have no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyop
from polyop import Tensor, func

LIBRARIES: dict[str, Callable[[Any], Tensor]] = {
    "numpy": polyop.from_numpy,
    "torch": lambda a: polyop.from_array(torch.from_numpy(a)),
    "jax": lambda a: polyop.from_array(jnp.asarray(a)),
    "dask": lambda a: polyop.from_array(da.from_array(a)),
}
library = pytest.mark.parametrize("wrap", LIBRARIES.values(), ids=LIBRARIES)
X = np.arange(12.0, dtype="f4").reshape(3, 4)
#: Indices of X in which places are met more than once, and of which none is.
PLACES = {
    "rows": [np.array([0, 0, 2]), None],
    "columns": [None, np.array([3, 1, -1, 1])],
    "elements": [np.array([0, 1, 0]), np.array([2, 2, 2])],
    "a grid": [np.array([[0], [2]]), np.array([1, 1, 3])],
    "apart": [np.array([2, 0, 1]), None],
    "one": [np.array([1]), None],
}


def both_modes(f: Callable[[Tensor], Tensor], v: Tensor) -> tuple[Any, Any]:
    """Give the derivatives of a function as forward and as reverse mode have them."""
    pair = func.jacfwd(f)(v), func.jacrev(f)(v)
    return np.asarray(pair[0].tolist()), np.asarray(pair[1].tolist())


@library
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_reverse_mode_is_the_transpose_of_what_is_written(places: Any, wrap: Any) -> None:
    """S134: a value counts where it stays; forward mode writes tangents as values are written."""
    x = wrap(X)
    indices = [None if i is None else wrap(i) for i in places]
    spelled = tuple(slice(None) if i is None else i for i in places)
    values = np.arange(1.0, 1 + X[spelled].size, dtype="f4").reshape(X[spelled].shape)
    forward, reverse = both_modes(lambda v: polyop.index_put(x, indices, v), wrap(values))
    assert np.array_equal(forward, reverse)
    kept = np.zeros_like(X)
    kept[spelled] = values  # each value that stays is there once
    assert reverse.sum() == len({*kept.ravel()} - {0.0})


@library
def test_along_an_axis(wrap: Any) -> None:
    """S134: the same for `put_along_axis`, whose values may be broadcast."""
    x, indices = wrap(X), wrap(np.array([[0, 0, 1], [3, 3, 3], [2, 1, 0]]))
    for shape in ((3, 3), (1, 3), (3, 1)):
        values = wrap(np.arange(1.0, 1 + np.prod(shape), dtype="f4").reshape(shape))
        forward, reverse = both_modes(
            lambda v: polyop.ops.core.put_along_axis(x, indices, v, axis=1), values
        )
        assert np.array_equal(forward, reverse)


@library
def test_batches_of_values_and_of_indices(wrap: Any) -> None:
    """S134, S157: each sample knows its own places."""
    x, weights = wrap(X), wrap(X + 1)
    places = wrap(np.array([[0, 0], [1, 2], [2, 2]]))
    values = wrap(np.arange(24.0, dtype="f4").reshape(3, 2, 4))

    def gradient(i: Tensor, v: Tensor) -> Tensor:
        return func.grad(lambda v: (polyop.index_put(x, [i], v) * weights).sum())(v)

    for dims in ((0, 0), (0, None), (None, 0)):
        rows = [
            (places[k if dims[0] == 0 else 0], values[k if dims[1] == 0 else 0]) for k in range(3)
        ]
        given = (places if dims[0] == 0 else places[0], values if dims[1] == 0 else values[0])
        got = polyop.vmap(gradient, dims)(*given)
        assert got.tolist() == [gradient(*row).tolist() for row in rows]


@given(st.lists(st.integers(-4, 3), min_size=1, max_size=9))
def test_written_through_a_subscript(places: list[int]) -> None:
    """S133, S134: `x[places] = v`, with the gradients of the values and of what was there."""
    n = len(places)
    weights = polyop.from_numpy(np.array([1.0, 10.0, 100.0, 1000.0]))
    x = polyop.from_numpy(np.arange(4.0)).requires_grad_()
    v = polyop.from_numpy(np.arange(1.0, 1 + n)).requires_grad_()
    y = x * 1
    y[polyop.tensor(places)] = v
    (y * y * weights).sum().backward()
    last = {p % 4: k for k, p in enumerate(places)}
    wanted = np.zeros(n)
    for p, k in last.items():
        wanted[k] = 2 * (k + 1) * 10.0**p
    assert v.grad is not None and v.grad.tolist() == wanted.tolist()
    free = [0.0 if p in last else 2 * p * 10.0**p for p in range(4)]
    assert x.grad is not None and x.grad.tolist() == free


def test_what_is_added_counts_each_time() -> None:
    """S134: values that are added up all count."""
    i = polyop.tensor([1, 1, 1])
    x, v = polyop.zeros(3), polyop.ones(3)
    got = func.grad(lambda v: polyop.index_put(x, [i], v, accumulate=True)[1])(v)
    assert got.tolist() == [1, 1, 1]


def test_derivatives_of_the_second_order() -> None:
    """S134: the mask is a constant of the gradient."""
    i, x = polyop.tensor([0, 0]), polyop.zeros(2)
    v = polyop.tensor([3.0, 5.0])
    hessian = func.hessian(lambda v: (polyop.index_put(x, [i], v) ** 3).sum())(v)
    assert hessian.tolist() == [[0, 0], [0, 30.0]]


def test_a_place_without_axes_is_one_place() -> None:
    """S136: a tensor without axes as an index writes one place, and its value has a gradient."""

    def loss(x: Any, v: Any) -> Any:
        y = x * 2
        y[polyop.tensor(1)] = v
        return (y * y).sum()

    x, v = polyop.tensor([1.0, 2.0, 3.0]), polyop.tensor(5.0)
    of_x, of_v = func.grad(loss, argnums=(0, 1))(x, v)
    assert (of_x.tolist(), of_v.item()) == ([8.0, 0.0, 24.0], 10.0)
