"""Tensors of Python's numbers, and of lines: what the quick ways make is what the long ones do."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import polyop
from polyop.errors import IntegerRangeError, OutOfRangeError
from polyop.ops import creation

NUMBERS = st.one_of(
    st.booleans(), st.integers(), st.integers(-3, 3), st.floats(), st.complex_numbers()
)
ROWS = st.integers(0, 3).flatmap(
    lambda n: st.lists(st.lists(NUMBERS, min_size=n, max_size=n), max_size=3)
)


def made(fn: Any, data: Any) -> Any:
    """What comes of some data: dtype, shape and bytes, or the error."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            array = fn(data).numpy()
        except Exception as error:  # noqa: BLE001 - each kind is compared
            return type(error), str(error)
    texts = sorted({str(w.message) for w in seen})
    return array.dtype, array.shape, array.tobytes(), texts, array.flags.writeable


@given(st.one_of(st.lists(NUMBERS, max_size=4), ROWS, st.lists(st.one_of(NUMBERS, ROWS))))
@example([2**63, 1])
@example([2**63 - 1, True])
@example([2**64, 1.0])
@example([1e300, 1.0])
@example([[1.0], [1]])
@example([[1.0], [1, 2]])
@example([10**400, 1.0])
@example([])
@example([[]])
def test_lists_of_numbers(data: Any) -> None:
    """S28: each list of Python's numbers gives the same tensor, warning or error as at length."""
    for fn in (polyop.asarray, polyop.tensor):
        quick = made(fn, data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(creation, "_of_numbers", lambda _: None)
            assert made(fn, data) == quick


def test_common_lists_are_quick(monkeypatch: Any) -> None:
    """S28: numbers of each kind, in a list or in rows, are read once."""
    monkeypatch.setattr(creation, "_as_array", None)
    for data, dtype in [
        ([1.0, 2], "float32"), ([1, 2], "int64"), ([True, False], "bool"), ([1j, 2.0], "complex64"),
        ([[1.0, 2.0], [3.0, 4.0]], "float32"), ([[1], [True]], "int64"),
    ]:  # fmt: skip
        for fn in (polyop.asarray, polyop.tensor):
            assert fn(data).dtype == np.dtype(dtype)
            np.testing.assert_array_equal(fn(data).numpy(), np.asarray(data))


def test_integers_beyond_are_refused() -> None:
    """S63: integers of which no dtype has all raise, rather than becoming floats."""
    for data in ([2**64, 1], [2**63, -1], [[-(2**63) - 1]]):
        with pytest.raises(IntegerRangeError):
            polyop.asarray(data)


def test_a_list_that_holds_itself() -> None:
    """S28: a list inside itself is an error, not a loop without end."""
    data: list[Any] = []
    data.append(data)
    with pytest.raises((RecursionError, ValueError)):
        polyop.asarray(data)


ENDS = st.one_of(st.floats(), st.floats(-5, 5), st.integers(-5, 5))


@given(
    ENDS, ENDS, st.integers(0, 9), st.booleans(),
    st.sampled_from([None, "float16", "float32", "float64", "int32", "complex64"]),
)  # fmt: skip
@example(0.0, 5e-324, 4, True, "float64")
@example(-1e308, 1e308, 4, True, "float64")
@example(0.0, math.inf, 4, False, None)
@example(2.0, 2.0, 3, True, None)
def test_lines_are_numpys(start: Any, stop: Any, n: int, endpoint: bool, dtype: Any) -> None:
    """S28: a line has NumPy's numbers to the last bit, and its warnings."""

    def ours(_: Any) -> Any:
        return polyop.linspace(start, stop, n, endpoint=endpoint, dtype=dtype)

    def theirs(_: Any) -> Any:
        array = np.linspace(start, stop, n, endpoint, dtype=dtype or "float32")
        return polyop.from_numpy(array)

    assert made(ours, None) == made(theirs, None)


@pytest.mark.parametrize("shape", [(4,), (4, 5), (3, 4, 5)])
@pytest.mark.parametrize("places", [[0, 2], [[1, -1], [0, 0]], [], 1])
def test_places_along_each_axis(shape: tuple[int, ...], places: Any) -> None:
    """S28: `take` along each axis has NumPy's numbers, in memory of its own, in order."""
    x = np.arange(math.prod(shape)).reshape(shape[::-1]).T
    at = np.asarray(places, np.int64)
    for axis in range(-len(shape), len(shape)):
        y = polyop.take(polyop.from_numpy(x), polyop.from_numpy(at), axis=axis).numpy()
        np.testing.assert_array_equal(y, np.take(x, at, axis))
        assert y.flags.c_contiguous
        assert not np.may_share_memory(x, y)


def test_places_that_are_not_there() -> None:
    """S28: a place, or an axis, that is not there raises, and names what was given."""
    x = polyop.zeros(2, 3)
    with pytest.raises(OutOfRangeError, match="indices do not fit"):
        polyop.take(x, polyop.asarray([3]), axis=1)
    with pytest.raises(OutOfRangeError, match="axis 2"):
        polyop.take(x, polyop.asarray([0]), axis=2)
