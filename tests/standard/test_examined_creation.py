"""Data at the edges of what dtypes hold: whole numbers beyond 64 bits, casts, NumPy's scalars."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.standard.arrays import ALL, BOOL, COMPLEX, FLOATS, INTEGERS
from tests.standard.grid import NUMBERS, SHAPES, differs, none, spread, values

import polyop as xp

BEYOND = [2**64, -(2**63) - 1, 2**100]


@pytest.mark.parametrize("number", BEYOND)
def test_whole_numbers_beyond_64_bits_are_refused(number: int) -> None:
    """No float is put in the place of an integer that no dtype holds; the error is two in one."""
    x = xp.ones(2)
    calls: list[Any] = [
        lambda: xp.asarray(number), lambda: xp.asarray([1, number]), lambda: x + number,
        lambda: number - x, lambda: xp.full(2, number), lambda: xp.full_like(x, number),
        lambda: xp.where(x == 1, x, number), lambda: xp.zeros(number),
        lambda: xp.asarray([[True], [number]]),
    ]  # fmt: skip
    for call in calls:
        for error in (OverflowError, TypeError):
            with pytest.raises(error, match="outside 64 bits"):
                call()


def test_whole_numbers_without_a_common_dtype_are_refused() -> None:
    """Negative ones beside those of uint64 alone are no float32; with floats they are numbers."""
    with pytest.raises(OverflowError, match="outside 64 bits"):
        xp.asarray([-1, 2**63])
    assert xp.asarray([2**63, 2**64 - 1]).dtype == "uint64"
    assert xp.asarray([-1, 2.0**63]).dtype == xp.asarray([2.0**70, -1.5]).dtype == "float32"
    assert xp.asarray([2**62, -(2**63)]).tolist() == [2**62, -(2**63)]


def test_numbers_of_every_kind_in_every_dtype() -> None:
    """`full`, `asarray` and `full_like` hold a number as NumPy does, or refuse it."""

    def cases() -> Iterator[str]:
        for dtype, number in itertools.product(ALL, NUMBERS):
            at = np.dtype(dtype)
            yield differs(
                lambda v, d=at: xp.full((2,), v, dtype=d), lambda v, d=at: np.full((2,), v, d),
                number,
            )  # fmt: skip
            for data in (number, [number, number], [[number]]):
                yield differs(
                    lambda v, d=at: xp.asarray(v, dtype=d), lambda v, d=at: np.asarray(v, d), data
                )
            yield differs(xp.full_like, np.full_like, np.zeros(2, dtype), number)

    none(cases())


def test_casts_between_every_two_dtypes() -> None:
    """Special values too, where the standard says what becomes of them."""

    def cases() -> Iterator[str]:
        for one, other in itertools.product(ALL, ALL):
            into_whole = other in INTEGERS and one in {*FLOATS, *COMPLEX}
            x = np.asarray([0, 1, 2, 3.7]).astype(one) if into_whole else values(one)
            for copy in (True, False):
                yield differs(
                    lambda v, d=other, c=copy: xp.astype(v, getattr(xp, d), copy=c),
                    lambda v, d=other: np.astype(v, np.dtype(d)),
                    x,
                )

    none(cases())


@pytest.mark.parametrize("dtype", [object, str, "datetime64[s]", list, 3])
def test_dtypes_of_what_is_no_number_are_refused(dtype: Any) -> None:
    """Objects, text and times are no elements of a tensor."""
    for call in (lambda: xp.zeros(2, dtype=dtype), lambda: xp.astype(xp.ones(2), dtype)):
        with pytest.raises(TypeError, match="dtype"):
            call()


def test_records_are_no_data() -> None:
    """An array of records is refused; so are text, times and objects."""
    arrays = [np.zeros(2, [("a", "i4")]), np.asarray(["a"]), np.zeros(2, "M8[s]"),
              np.asarray([None])]  # fmt: skip
    for data in arrays:
        with pytest.raises(TypeError, match="no array of numbers"):
            xp.asarray(data)


def test_ranges() -> None:
    """Whole and broken steps up and down, ends that are met and missed, and far ones."""
    ends: list[Any] = [0, 1, 5, -3, 2**62, 0.5, -2.5, 2**63 - 5, -(2**63), 7.25]
    steps: list[Any] = [1, -1, 2, 3, 0.25, -0.75, 2**40]

    def cases() -> Iterator[str]:
        for start, stop, step in itertools.product(ends, ends, steps):
            if abs((stop - start) / step) > 500:
                continue
            for dtype in ("int64", "float32", "float64", "int8", "uint64", "complex64"):
                at = np.dtype(dtype)
                yield differs(
                    lambda a, b, c, d=at: xp.arange(a, b, c, dtype=d),
                    lambda a, b, c, d=at: np.arange(a, b, c, dtype=d),
                    start, stop, step,
                )  # fmt: skip

    none(cases())


def test_even_spaces() -> None:
    """Every kind of ends, infinite ones too, to the last bit, in every dtype."""
    ends: list[Any] = [0, 1, -3, 2.5, 0.1, 1e30, 2**53, 1j, math.inf, math.nan, -0.0]

    def cases() -> Iterator[str]:
        for start, stop, num in itertools.product(ends, ends, (0, 1, 2, 3, 10)):
            whole = complex not in {type(start), type(stop)} and math.isfinite(start - stop)
            kinds = [*FLOATS, *COMPLEX, *(["int64"] if whole and abs(stop) < 1e20 else [])]
            for dtype, endpoint in itertools.product(kinds, (True, False)):
                if (type(start) is complex or type(stop) is complex) and dtype in FLOATS:
                    continue
                if "int" in dtype and abs(start) >= 1e20:
                    continue
                at = np.dtype(dtype)
                yield differs(
                    lambda a, b, n, d=at, e=endpoint: xp.linspace(a, b, n, dtype=d, endpoint=e),
                    lambda a, b, n, d=at, e=endpoint: np.linspace(a, b, n, dtype=d, endpoint=e),
                    start, stop, num,
                )  # fmt: skip

    none(cases())


SCALARS = [np.float64(2), np.float32(2), np.int8(3), np.int64(3), np.uint64(3), np.bool_(True),
           np.complex64(1j)]  # fmt: skip


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda s: type(s).__name__)
def test_scalars_of_numpy_are_data_with_a_dtype(scalar: Any) -> None:
    """Made a tensor, alone or in a list, a scalar of NumPy keeps its dtype."""
    for data in (scalar, [scalar, scalar]):
        found = xp.asarray(data)
        np.testing.assert_array_equal(found.numpy(), np.asarray(data))
        assert found.dtype == scalar.dtype


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("dtype", [*BOOL, *INTEGERS, *FLOATS, *COMPLEX])
def test_scalars_of_numpy_beside_a_tensor_are_numbers(scalar: Any, dtype: str) -> None:
    """In a calculation, on either side, a scalar of NumPy is the Python number of its value."""
    x = xp.asarray(spread(dtype, (3,), small=True))
    number = scalar.item()
    for found, wanted in (
        (x + scalar, x + number), (scalar + x, number + x), (x * scalar, x * number),
        (xp.maximum(x, scalar), xp.maximum(x, number)) if dtype not in COMPLEX else (x, x),
        (x == scalar, x == number),
    ):  # fmt: skip
        assert type(found) is xp.Tensor
        assert (found.dtype, found.tolist()) == (wanted.dtype, wanted.tolist())


def test_text_of_every_tensor() -> None:
    """Every dtype and shape can be printed, none among them of nothing but an empty text."""
    for shape, dtype in itertools.product([*SHAPES, (1,) * 64], ALL):
        x = xp.asarray(spread(dtype, shape, small=True))
        assert repr(x).startswith("tensor(")
        assert str(x) == f"{x}" == repr(x)
