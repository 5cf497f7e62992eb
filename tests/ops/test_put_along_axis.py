"""`put_along_axis` writes into the tensor itself, as NumPy's function does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor, func
from polyop.errors import MutationError, VmapError
from polyop.graph import make_fx

LIBRARIES: dict[str, Callable[[Any], Tensor]] = {
    "numpy": lambda a: polyop.from_numpy(a.copy()),
    "torch": lambda a: polyop.from_array(torch.tensor(a)),
    "jax": lambda a: polyop.from_array(jnp.asarray(a)),
    "strict": lambda a: polyop.from_array(array_api_strict.asarray(a)),
    "dask": lambda a: polyop.from_array(da.from_array(a)),
}
library = pytest.mark.parametrize("wrap", LIBRARIES.values(), ids=LIBRARIES)
X = np.arange(12.0, dtype="f4").reshape(3, 4)
PLACES = np.array([[0, -1], [2, 1], [3, 0]])
VALUES = np.array([[10.0], [20], [30]], dtype="f4")


def written(array: Any, places: Any = PLACES, values: Any = VALUES) -> Any:
    """Give what NumPy writes."""
    result = array.copy()
    np.put_along_axis(result, places, values, -1)
    return result


def put(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Write, and give the tensor back."""
    assert polyop.put_along_axis(x, places, values) is None  # type: ignore[func-returns-value]
    return x


@library
def test_the_tensor_and_its_base_are_written(wrap: Any) -> None:
    """S135: a write is seen in the tensor, and through a view in its base."""
    x = put(wrap(X), wrap(PLACES), wrap(VALUES))
    np.testing.assert_array_equal(np.asarray(x), written(X))
    x, wanted = wrap(X), X.copy()
    x[:, ::2].put_along_axis(wrap(PLACES % 2), wrap(VALUES))
    np.put_along_axis(wanted[:, ::2], PLACES % 2, VALUES, -1)
    np.testing.assert_array_equal(np.asarray(x), wanted)


def test_numbers_lists_and_arrays_are_taken() -> None:
    """S206: indices and values are what a key and what is written there may be."""
    for values in (5, [[5], [5], [5]], np.array(5.0)):
        x = polyop.from_numpy(X.copy())
        polyop.put_along_axis(x, PLACES.tolist(), values, axis=1)
        np.testing.assert_array_equal(x.numpy(), written(X, values=5))


def test_foreign_arrays_are_written_themselves() -> None:
    """S66: NumPy's and PyTorch's own arrays are written in place."""
    array, foreign = X.copy(), torch.tensor(X)
    polyop.put_along_axis(array, PLACES, VALUES)
    polyop.put_along_axis(foreign, torch.tensor(PLACES), torch.tensor(VALUES))
    np.testing.assert_array_equal(array, written(X))
    np.testing.assert_array_equal(foreign.numpy(), written(X))


@library
def test_gradients_are_those_of_pytorch(wrap: Any) -> None:
    """S134: what is overwritten has no gradient, what is written has that of its place."""

    def loss(x: Tensor, values: Tensor) -> Tensor:
        return (put(x * 1, wrap(PLACES), values) * wrap(X + 1)).sum()

    x, values = (torch.tensor(a, requires_grad=True) for a in (X, VALUES))
    there = x.scatter(1, torch.tensor(PLACES % 4), values.expand(3, 2))
    (there * torch.tensor(X + 1)).sum().backward()
    found = func.grad(loss, (0, 1))(wrap(X), wrap(VALUES))
    for f, w in zip(found, (x, values), strict=True):
        np.testing.assert_allclose(np.asarray(f), w.grad)


def test_infinite_values_leave_other_gradients_alone() -> None:
    """S134: what is overwritten has the gradient zero, whatever overwrites it."""
    x = polyop.asarray([1.0, 2.0, 3.0]).requires_grad_()
    y = polyop.ops.core.put_along_axis(x, polyop.asarray([0]), polyop.asarray([np.inf]))
    y[1:].sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0]


def test_values_may_be_a_view_of_what_is_written() -> None:
    """S134: the backward needs none of the values, so a write to them is no harm."""
    x = polyop.from_numpy(X).requires_grad_()
    y = x * 1
    polyop.put_along_axis(y, PLACES, y[:, :1])
    y.sum().backward()
    assert x.grad.tolist() == [[2, 1, 1, 0], [3, 0, 0, 1], [2, 1, 1, 0]]


def test_a_leaf_that_requires_grad_is_not_written() -> None:
    """S135: as with other operators that write."""
    with pytest.raises(MutationError, match="a leaf that requires grad"):
        polyop.put_along_axis(polyop.ones(2).requires_grad_(), [0], 1)


def test_transforms_keep_the_write() -> None:
    """S159, S174: batched, functionalized and traced, the write is there."""
    x, places, values = map(polyop.from_numpy, (X, PLACES, VALUES))
    found = [
        polyop.vmap(lambda a, i, v: put(a * 1, i, v))(x, places, values),
        func.functionalize(lambda a: put(a * 1, places, values))(x),
        make_fx(lambda a: put(a * 1, places, values))(x)(x + 0),
    ]
    for result in found:
        np.testing.assert_array_equal(result.numpy(), written(X))
    with pytest.raises(VmapError, match="the same for all samples"):
        polyop.vmap(put, (None, 0, 0))(x[0], places, values)


def test_a_copy_is_a_clone() -> None:
    """The method `copy` has NumPy's name, and shares nothing."""
    x = polyop.ones(2).requires_grad_()
    y = x.copy()
    y += 1
    y.sum().backward()
    assert (x.tolist(), x.grad.tolist()) == ([1, 1], [1, 1])
