"""Products, norms and transforms at their edges: sizes, special values, whole numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.standard.arrays import ALL, BOOL, FLOATING, FLOATS, INTEGERS
from tests.standard.grid import differs, none, spread

import polyop as xp

MATMUL = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 2)), ((), (3,)), ((3,), ()),
    ((2,), (3,)), ((2, 3), (2, 3)), ((4, 2, 3), (3,)), ((4, 1, 2, 3), (5, 3, 1)), ((0,), (0,)),
    ((0, 3), (3, 0)), ((3, 0), (0, 3)), ((2, 0, 3), (2, 3, 4)), ((3,), (2,)),
]  # fmt: skip
AXES = [0, 1, 2, 3, ((0,), (0,)), ((-1,), (0,)), ((1, 0), (0, 1)), ((), ()), ((0,), (0, 1))]
ORDERS = [0, 1, 2, -1, -2, 3, 2.5, -3, 0.5, math.inf, -math.inf]


@pytest.mark.parametrize(("one", "other"), MATMUL)
def test_products_of_every_two_dtypes(one: Any, other: Any) -> None:
    """`matmul`, `vecdot` and `tensordot` promote, broadcast and refuse as NumPy does."""

    def cases() -> Iterator[str]:
        for left, right in itertools.product(ALL, ALL):
            x, y = spread(left, one, small=True), spread(right, other, small=True)
            yield differs(xp.matmul, np.matmul, x, y, close=True)
            for axis in (-1, -2) if one and other else ():
                yield differs(xp.vecdot, np.vecdot, x, y, axis=axis, close=True)
        for axes in AXES:
            x, y = spread("float64", one, True), spread("float64", other, True)
            yield differs(xp.tensordot, np.tensordot, x, y, axes=axes, close=True)

    none(cases())


@pytest.mark.parametrize(("one", "other"), MATMUL)
def test_outer_products_are_of_vectors(one: Any, other: Any) -> None:
    """Matrices and numbers are refused: no axis is broadcast that was not meant to be."""
    x, y = spread("float64", one, small=True), spread("float64", other, small=True)
    none(iter([differs(xp.linalg.outer, np.linalg.outer, x, y)]))


HOSTILE = [
    [0, math.inf], [math.nan, 1], [-math.inf, 0], [0, 0], [-0.0, 0.0], [1e-200, 1e-200],
    [math.inf, math.nan], [3, 4], [1e200, 1e200],
]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_norms_of_hostile_vectors(order: float) -> None:
    """Infinities, NaN, zeros and numbers whose powers overflow."""

    def cases() -> Iterator[str]:
        for dtype, data in itertools.product(FLOATING, HOSTILE):
            with np.errstate(over="ignore"):
                x = np.asarray(data).astype(dtype)
            yield differs(xp.linalg.vector_norm, np.linalg.vector_norm, x, ord=order, close=True)

    none(cases())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [*BOOL, *INTEGERS])
def test_norms_of_whole_numbers(order: float, dtype: str) -> None:
    """Powers of integers are taken as floats: none overflows, and the norm is a float."""
    x = np.asarray([[1, 0, 100], [90, 2, 7]]).astype(dtype)

    def cases() -> Iterator[str]:
        for axis in (None, 0, -1, (0, 1)):
            named: dict[str, Any] = {"ord": order, "axis": axis}
            yield differs(xp.linalg.vector_norm, np.linalg.vector_norm, x, close=True, **named)

    none(cases())
    assert xp.linalg.vector_norm(xp.asarray(x), ord=order).dtype == "float64"


def test_the_usual_norm_of_matrices_may_be_none() -> None:
    """The standard lets `ord` be None, and leaves it at "fro"."""
    x = spread("float32", (2, 3, 4), small=True)
    ours = xp.asarray(x)
    for keepdims in (False, True):
        found = xp.linalg.matrix_norm(ours, ord=None, keepdims=keepdims)
        wanted = np.linalg.matrix_norm(x, keepdims=keepdims)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


TRANSFORMS = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_at_their_edges(name: str) -> None:
    """Lengths from none to more than there are, axes in range and out of it, every norm."""
    ours, theirs = getattr(xp.fft, name), getattr(np.fft, name)
    dtypes = FLOATS if name in {"rfft", "ihfft"} else FLOATING

    def cases() -> Iterator[str]:
        for dtype, shape in itertools.product(dtypes, [(4,), (5,), (1,), (2, 3), (3, 4, 2)]):
            x = spread(dtype, shape, small=True)
            for n, axis in itertools.product((None, 1, 2, 3, 7, 0, -1), (-1, 0, 1, -2, 5)):
                yield differs(ours, theirs, x, n=n, axis=axis, close=True)
            for norm in ("backward", "ortho", "forward", "none"):
                yield differs(ours, theirs, x, norm=norm, close=True)

    none(cases())
    with pytest.raises(IndexError):
        ours(xp.ones(3), axis=1)


SIZES: list[Any] = [
    (None, None), (None, (0,)), (None, (-1,)), (None, (0, 1)), (None, (1, 0)), ((3,), (0,)),
    ((2, 5), (0, 1)), ((2, 5), (-1, -2)), ((2, -1), (0, 1)), ((-1, 5), (0, 1)), ((-1,), (1,)),
    ((0,), (0,)), ((2, 2), (0,)), ((-2,), (0,)),
]  # fmt: skip


@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_transforms_of_several_axes_at_their_edges(name: str) -> None:
    """Sizes for some axes, -1 for an axis as it is, and sizes that no axis can have."""
    ours, theirs = getattr(xp.fft, name), getattr(np.fft, name)

    def cases() -> Iterator[str]:
        for dtype in FLOATS if name == "rfftn" else FLOATING:
            for sizes, axes in SIZES:
                for norm in ("backward", "ortho", "forward"):
                    x = spread(dtype, (3, 4), small=True)
                    yield differs(ours, theirs, x, s=sizes, axes=axes, norm=norm, close=True)

    none(cases())


SQUARES = [(3, 3), (1, 1), (0, 0), (2, 3, 3), (0, 2, 2), (2, 0, 0), (2, 3), (3,), (), (2, 0, 3)]


@pytest.mark.parametrize("dtype", FLOATING)
def test_functions_of_square_matrices_at_their_edges(dtype: str) -> None:
    """Matrices of no elements have results; what is no square matrix is refused."""

    def cases() -> Iterator[str]:
        for shape in SQUARES:
            x = spread(dtype, shape, small=True)
            if len(shape) > 1 and shape[-1] == shape[-2]:
                x = (x @ x.conj().swapaxes(-1, -2) + 9 * np.eye(shape[-1])).astype(dtype)
            for name in ("det", "inv", "slogdet", "eigvalsh", "cholesky", "svdvals", "trace",
                         "diagonal", "matrix_norm", "pinv"):  # fmt: skip
                if name in {"det", "matrix_norm", "trace"}:
                    x = x / 100
                x = x.astype(dtype)
                yield differs(getattr(xp.linalg, name), getattr(np.linalg, name), x, close=True)
            for n in (-2, -1, 0, 1, 2, 3):
                small = (x / 50).astype(dtype)
                args = (xp.linalg.matrix_power, np.linalg.matrix_power, small, n)
                yield differs(*args, close=True) if n >= 0 else ""
            for right in ((3,), (3, 1), (3, 2), (3, 0), (2, 3, 1), (4,)):
                y = spread(dtype, right, small=True)
                yield differs(xp.linalg.solve, np.linalg.solve, x, y, close=True)

    none(cases())


@pytest.mark.parametrize("offset", [-9, -3, -1, 0, 1, 2, 9])
def test_diagonals_past_the_edges(offset: int) -> None:
    """A diagonal outside the matrix has no elements, and the sum zero."""

    def cases() -> Iterator[str]:
        for dtype, shape in itertools.product(ALL, [(2, 3), (3, 2), (0, 3), (2, 3, 4), (2, 0, 2)]):
            x = spread(dtype, shape, small=True)
            yield differs(xp.linalg.diagonal, np.linalg.diagonal, x, offset=offset)
            if dtype != "bool":
                yield differs(xp.linalg.trace, np.linalg.trace, x, offset=offset, close=True)
            for name in ("tril", "triu"):
                yield differs(getattr(xp, name), getattr(np, name), x, k=offset)

    none(cases())
