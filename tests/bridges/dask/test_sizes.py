"""Chunks of odd sizes: axes of one element in several, and sizes that nobody has computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from tests.bridges.dask import operators as ops

import polyop
from polyop.errors import GuardOnDataDependentError


@pytest.fixture(autouse=True)
def in_order() -> Iterator[None]:
    """Tasks run one after the other."""
    with dask.config.set(scheduler="synchronous"):
        yield


# -- one element in several chunks ----------------------------------------------------------


def alone(first: bool) -> Any:
    """The one element that a filter leaves, beside a chunk of none."""
    v = da.from_array(np.array([5.0, -1, -2, -3] if first else [-1.0, -2, -3, 5]), chunks=2)
    found = v[v > 0]
    found.compute_chunk_sizes()
    assert found.chunks == (((1, 0) if first else (0, 1)),)
    return found


ONES = {
    "itself": lambda x: polyop.add(x, x),
    "one": lambda x: polyop.multiply(x, np.array([3.0])),
    "repeated": lambda x: polyop.multiply(x, np.array([3.0, 4, 5])),
    "with another": lambda x: polyop.add(x, da.ones(3, chunks=2)),
    "an author's": lambda x: ops.sine(x, 2.0),
    "repeated by an author's": lambda x: ops.product(x[:, None, None], np.ones((4, 1, 2))),
    "a tensor": lambda x: polyop.multiply(polyop.from_array(x), np.array([3.0])),
    "repeated tensor": lambda x: polyop.broadcast_to(polyop.from_array(x), (3,)),
    "author's, of tensors": lambda x: ops.sine(polyop.from_array(x), 2.0),
    "chosen": lambda x: polyop.where(polyop.from_array(x) > 2, polyop.from_array(x), np.zeros(2)),
    "a gradient": lambda x: gradient(lambda t: (t * np.array([3.0, 4, 5])).sum(), x),
    "an author's gradient": lambda x: gradient(
        lambda t: ops.product(t[:, None, None], polyop.ones(1, 1, 2, dtype=polyop.float64)).sum(), x
    ),
}


def gradient(fn: Any, x: Any) -> Any:
    """The gradient, of tensors over any library."""
    return polyop.func.grad(fn)(polyop.from_array(x))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ONES)
def test_one_element_beside_an_empty_chunk(name: str, first: bool) -> None:
    """S66: an axis of one element is one element, in however many chunks it lies."""
    made, wanted = ONES[name](alone(first)), np.asarray(ONES[name](np.array([5.0])))
    found = np.asarray(made)
    assert tuple(made.shape) == wanted.shape == found.shape
    np.testing.assert_allclose(found, wanted)


# -- sizes that nobody has computed -----------------------------------------------------------

BASE = np.array([5.0, -1, -4, -2, -3, 7, -9])
TALL = BASE[:6].reshape(6, 1) * np.array([1.0, 2.0])

ASKING: dict[str, Callable[[Any], Any]] = {
    "std": lambda t: t.std(),
    "var": lambda t: t.var(correction=1),
    "slice": lambda t: t[1:],
    "index": lambda t: t[0],
    "diff": polyop.diff,
    "fft": lambda t: polyop.fft.fft(t, axis=0),
    "gradient": polyop.func.grad(lambda t: (t * t).sum()),
    "where": lambda t: polyop.where(t > 2, t, 0.0),
    "two": lambda t: t + t * 2,
    "mask": lambda t: t[t > 2],
    "reshape": lambda t: t.reshape([-1, 1]),
    "len": len,
    "share": lambda t: t.sum() / t.shape[0],
    "product": lambda t: polyop.multiply(t, t.shape[0]),
    "branch": lambda t: t if t.shape[0] > 3 else -t,
}


@pytest.mark.parametrize("base", [BASE, TALL])
@pytest.mark.parametrize("name", ASKING)
def test_what_asks_for_a_size_says_so(name: str, base: Any) -> None:
    """S66: an answer that would need a size which Dask has not computed is a named error."""
    x = da.from_array(base, chunks=2)
    x = x[x < 0] if base.ndim == 1 else x[x[:, 0] < 0]
    with pytest.raises(GuardOnDataDependentError, match=r"compute_chunk_sizes\(\)"):
        ASKING[name](polyop.from_array(x))
    x.compute_chunk_sizes()
    found, wanted = (ASKING[name](f(x)) for f in (polyop.from_array, polyop.asarray))
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted))


PASSING: dict[str, Callable[[Any], Any]] = {
    "mean": lambda t: t.mean(),
    "mean of rows": lambda t: t.mean(axis=-1),
    "sum": lambda t: t.sum(axis=0),
    "full_like": lambda t: polyop.full_like(t, 3.0),
    "zeros_like": polyop.zeros_like,
    "self": lambda t: t * t + 1.0,
    "sort": lambda t: polyop.sort(t, axis=0),
    "argmax": lambda t: polyop.argmax(t, axis=0),
    "running": lambda t: polyop.cumulative_sum(t, axis=-1),
    "softmax": lambda t: polyop.exp(t) / polyop.exp(t).sum(axis=0),
    "joined": lambda t: polyop.concat([t, t]),
    "new axis": lambda t: t[None],
    "sorted": lambda t: polyop.searchsorted(polyop.sort(t), np.array([-3.5, -1.0])),
}


@pytest.mark.parametrize("base", [BASE, TALL])
@pytest.mark.parametrize("name", PASSING)
def test_what_asks_for_none_is_right(name: str, base: Any) -> None:
    """S66: what needs no such size goes on, with NumPy's values."""
    if base.ndim == 2 and name == "sorted":
        pytest.skip("rows of unknown number cannot be one vector")
    x = da.from_array(base, chunks=2)
    x = x[x < 0] if base.ndim == 1 else x[x[:, 0] < 0]
    found = PASSING[name](polyop.from_array(x)).numpy()
    np.testing.assert_allclose(found, PASSING[name](polyop.from_numpy(x.compute())).numpy())


def test_a_size_that_nobody_knows_is_nan() -> None:
    """S66: a shape shows such a size as Dask does, and it takes part in no arithmetic's answer."""
    x = da.from_array(BASE, chunks=2)
    (n,) = polyop.from_array(x[x < 0]).shape
    assert str(n) == "nan" and np.isnan(float(n)) and n == n
    assert str(n * 2 + 1) == "nan"
    with pytest.raises(GuardOnDataDependentError, match="compute_chunk_sizes"):
        range(n)
