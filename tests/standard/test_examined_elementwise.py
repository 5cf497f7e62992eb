"""Elementwise functions and operators over all values where mistakes are made, bit by bit."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.standard.arrays import ALL, BOOL, REAL
from tests.standard.grid import NUMBERS, SHAPES, differs, none, spread, values
from tests.standard.test_elementwise import COMPARING, OF_ONE, OF_TWO, OPERATORS

import polyop as xp


@pytest.mark.parametrize("name", OF_ONE)
def test_functions_of_one_array_have_numpys_bits(name: str) -> None:
    """Infinities, NaN, zeros of both signs, subnormal numbers, extremes, and all pairs of parts."""
    ours, theirs = getattr(xp, name), getattr(np, name)

    def cases() -> Iterator[str]:
        for dtype in OF_ONE[name]:
            row = values(dtype)
            yield differs(ours, theirs, row)
            yield differs(lambda x: ours(x[::-2]), lambda x: theirs(x[::-2]), row)
            for shape in SHAPES:
                yield differs(ours, theirs, spread(dtype, shape))
            for i in range(0, len(row), 3):
                yield differs(ours, theirs, row[i : i + 1].reshape(()))

    none(cases())


@pytest.mark.parametrize("name", OF_TWO)
def test_functions_of_two_arrays_have_numpys_bits(name: str) -> None:
    """Each value of one dtype meets each of the other, in all pairs that NumPy has too."""
    ours, theirs = getattr(xp, name), getattr(np, name)

    def cases() -> Iterator[str]:
        for one in OF_TWO[name]:
            for other in OF_TWO[name]:
                x, y = values(one)[:30], values(other)[:30]
                yield differs(ours, theirs, x[:, None], y[None, :])

    none(cases())


@pytest.mark.parametrize("name", OF_TWO)
def test_functions_of_an_array_and_a_number_have_numpys_bits(name: str) -> None:
    """A number on either side gives NumPy's dtype and values, or is refused where it is there."""
    ours, theirs = getattr(xp, name), getattr(np, name)

    def cases() -> Iterator[str]:
        for dtype in OF_TWO[name]:
            row = values(dtype)[:20]
            for number in NUMBERS:
                if name == "logaddexp" and isinstance(number, complex):
                    continue  # ours has an answer
                yield differs(ours, theirs, row, number)
                yield differs(ours, theirs, number, row)
                yield differs(ours, theirs, row[1:2].reshape(()), number)

    none(cases())


def _on_both_sides(name: str) -> Iterator[str]:
    fn = getattr(operator, name)
    dtypes = OF_TWO[OPERATORS[name]]
    for dtype in dtypes:
        row = values(dtype)[:20]
        for number in NUMBERS:
            if name == "pow" and not isinstance(number, float):
                continue  # NumPy's operator has shortcuts that its function has not
            yield differs(fn, fn, row, number)
            yield differs(fn, fn, number, row)
        for other in dtypes:
            if name == "pow" and np.dtype(dtype).kind == "c":
                continue
            yield differs(fn, fn, row[:, None], values(other)[:20])


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_have_numpys_bits(name: str) -> None:
    """Operators, with arrays and with numbers on either side, are NumPy's to the bit."""
    none(_on_both_sides(name))


IN_PLACE = [f"i{name.rstrip('_')}" for name in OPERATORS if OPERATORS[name] not in COMPARING]


def _writes(name: str) -> Any:
    fn = getattr(operator, name)

    def written(x: Any, y: Any) -> Any:
        left = fn(x, y)
        assert left is x
        return left

    return written


@pytest.mark.parametrize("name", IN_PLACE)
def test_operators_in_place_write_or_refuse_as_numpy_does(name: str) -> None:
    """A wider dtype or shape on the right is refused; nothing is written then, or cut silently."""
    fn = _writes(name)

    def cases() -> Iterator[str]:
        for dtype in ALL:
            for other in ALL:
                if name == "ipow" and np.dtype(dtype).kind == "c":
                    continue
                x = spread(dtype, (2, 3), small=True)
                for shape in ((2, 3), (3,), (1,), (2, 2, 3)):
                    yield differs(fn, fn, x, spread(other, shape, small=True))
            for number in NUMBERS:
                if name == "ipow" and (np.dtype(dtype).kind in "bc" or number == -1):
                    continue
                yield differs(fn, fn, values(dtype)[:20], number)

    none(cases())


MATMUL_INTO = [
    ((3, 3), (3, 3)), ((2, 3), (3, 3)), ((2, 3), (3, 2)), ((3,), (3, 3)), ((2, 2, 2), (2, 2)),
    ((2, 2), (3, 2, 2)), ((3,), (3,)), ((2, 2), (2,)), ((1, 1), (1,)), ((2, 3), (3, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), MATMUL_INTO)
def test_a_product_of_matrices_in_place(one: Any, other: Any) -> None:
    """`x @= y` keeps the shape and the dtype of `x`, or is refused: nothing is spread or cut."""
    x, y = np.ones(one), np.ones(other)
    found = kept = xp.ones(one, dtype=xp.float64)
    if np.shape(x @ y) == one:
        found @= xp.asarray(y)
        assert found is kept
        np.testing.assert_array_equal(found.numpy(), x @ y)
        return
    with pytest.raises(ValueError, match="cannot be written"):
        found @= xp.asarray(y)
    np.testing.assert_array_equal(kept.numpy(), x)


def test_a_product_of_another_kind_is_not_written() -> None:
    """Floats do not become integers on the way into `x @= y`."""
    x = xp.ones((2, 2), dtype=xp.int8)
    with pytest.raises(TypeError, match="cannot be written"):
        x @= xp.ones((2, 2))
    x @= xp.ones((2, 2), dtype=xp.int8)
    assert x.tolist() == [[2, 2], [2, 2]]


LIMITS = [None, -(2**63), -1000, -129, 0, 3, 128, 300, 2**31, 2**63 - 1, 2**64 - 1, 2.5]


@pytest.mark.parametrize("dtype", [*BOOL, *REAL])
def test_clip_to_numbers_beyond_a_dtype(dtype: str) -> None:
    """A limit that no integer of the dtype passes moves none, and does not change the dtype."""

    def cases() -> Iterator[str]:
        for low in LIMITS:
            for high in LIMITS:
                if (low, high) == (None, None) or (low or 0) > (9 if high is None else high):
                    continue
                row = spread(dtype, (5,), small=True)
                yield differs(xp.clip, np.clip, row, low, high, close=True)

    none(cases())


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_clip_to_a_number_on_the_wrong_side_of_a_dtype(dtype: str) -> None:
    """A limit that all integers of a dtype would have to pass cannot be said in the dtype."""
    for limits in ((2**64 - 1, None), (None, -(2**63) if dtype != "int64" else -(2**64))):
        with pytest.raises(OverflowError):
            xp.clip(xp.ones(2, dtype=dtype), *limits)
