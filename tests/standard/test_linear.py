"""Linear algebra, its extension, and Fourier transforms: NumPy's results, in stacks too."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.standard.arrays import (
    ALL,
    COMPLEX,
    FLOATING,
    FLOATS,
    NUMERIC,
    agree,
    arrays,
    examined,
    into,
    pairs_of,
    same,
    summed_dtype,
)

import polyop as xp

MATMUL = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)),
    ((3,), (5, 3, 2)), ((0,), (0,)), ((2, 0), (0, 3)), ((4, 1, 2, 3), (5, 3, 2)),
]  # fmt: skip
VECDOT = [
    ((3,), (3,), -1), ((2, 3), (3,), -1), ((2, 3), (1, 3), -1), ((3, 2), (3, 2), -2),
    ((2, 0), (2, 0), -1), ((4, 1, 3), (5, 3), -1),
]  # fmt: skip
TENSORDOT: list[Any] = [
    ((3, 4), (3, 4), 2), ((3, 4), (4, 2), 1), ((3,), (2,), 0), ((3, 4), (4, 3), ((0, 1), (1, 0))),
    ((3, 4), (4, 3), ((-1,), (0,))), ((), (), 0), ((2, 0), (0, 2), 1),
]  # fmt: skip
CROSS = [((3,), (3,), -1), ((3, 2), (3, 2), 0), ((2, 3), (1, 3), -1), ((0, 3), (0, 3), -1)]
SQUARE = [(3, 3), (1, 1), (0, 0), (2, 3, 3), (0, 2, 2)]
MATRICES = [(3, 3), (2, 3), (3, 2), (2, 3, 4), (1, 1), (0, 2, 3)]


def two(data: Any, cases: Any, dtypes: list[str]) -> Any:
    """Draw two arrays of dtypes that promote, of shapes that fit, and what else the case has."""
    one, other = data.draw(pairs_of(dtypes))
    a, b, *rest = data.draw(st.sampled_from(cases))
    x, y = (data.draw(arrays(d, s, special=False)) for d, s in ((one, a), (other, b)))
    return x, y, *rest


@examined
@given(st.data())
def test_products(data: Any) -> None:
    """`matmul`, `@`, `vecdot`, `tensordot`, `outer` and `cross`, in both namespaces."""
    x, y = two(data, MATMUL, NUMERIC)
    for of in ("", "linalg"):
        agree("matmul", x, y, of=of, loose=True)
    same(into(x) @ into(y), x @ y, loose=True)
    x, y, axis = two(data, VECDOT, NUMERIC)
    for of in ("", "linalg"):
        agree("vecdot", x, y, axis=axis, of=of, loose=True)
    x, y, axes = two(data, TENSORDOT, NUMERIC)
    for of in ("", "linalg"):
        agree("tensordot", x, y, axes=axes, of=of, loose=True)
    x, y = two(data, [((3,), (2,)), ((0,), (2,))], NUMERIC)
    agree("outer", x, y, of="linalg")
    x, y, axis = two(data, CROSS, NUMERIC)
    agree("cross", x, y, axis=axis, of="linalg", loose=True)


def test_products_refuse_sizes_that_do_not_meet() -> None:
    """Each product names what does not fit, as a `ValueError`."""
    x = xp.ones(3)
    for fn in (lambda: xp.matmul(x, xp.ones(2)), lambda: xp.matmul(x, xp.asarray(1.0)),
               lambda: xp.vecdot(x, xp.ones(2)), lambda: xp.tensordot(x, xp.ones(2), axes=1),
               lambda: xp.linalg.cross(xp.ones(2), xp.ones(2)),
               lambda: xp.linalg.inv(xp.ones((2, 3)))):  # fmt: skip
        with pytest.raises(ValueError):  # noqa: PT011 - each has a text of its own
            fn()


def definite(data: Any, dtype: str, shape: Any) -> Any:
    """Draw matrices that have an inverse and a Cholesky factor."""
    x = data.draw(arrays(dtype, shape, special=False))
    return x @ x.conj().swapaxes(-1, -2) + 4 * np.eye(x.shape[-1], dtype=dtype)


@pytest.mark.parametrize("dtype", FLOATING)
@examined
@given(st.data())
def test_square_matrices(dtype: str, data: Any) -> None:
    """Determinants, inverses, powers, factors, solutions, and the named results."""
    x = definite(data, dtype, data.draw(st.sampled_from(SQUARE)))
    for name in ("inv", "slogdet", "eigvalsh", "cholesky"):
        agree(name, x, of="linalg", loose=True)
    relative = np.linalg.det(x)
    found = xp.linalg.det(into(x))
    np.testing.assert_allclose(found.numpy(), relative, rtol=1e-2)
    assert (found.dtype, found.shape) == (dtype, x.shape[:-2])
    agree("cholesky", x, upper=True, of="linalg", loose=True)
    agree("matrix_power", x / (1 + np.abs(x).max(initial=0)), data.draw(st.integers(0, 4)),
          of="linalg", loose=True)  # fmt: skip
    values, vectors = xp.linalg.eigh(into(x))
    assert xp.linalg.eigh(into(x))._fields == ("eigenvalues", "eigenvectors")
    back = vectors.numpy() * values.numpy()[..., None, :] @ vectors.numpy().conj().swapaxes(-1, -2)
    np.testing.assert_allclose(back, x, atol=1e-3, rtol=1e-3)
    n = x.shape[-1]
    for shape in ((n,), (n, 2), (*x.shape[:-2], n, 1)):
        agree("solve", x, np.ones(shape, dtype), of="linalg", loose=True)


@pytest.mark.parametrize("dtype", FLOATING)
@examined
@given(st.data())
def test_any_matrices(dtype: str, data: Any) -> None:
    """Factors of matrices that are not square, ranks, pseudo-inverses and norms."""
    x = data.draw(arrays(dtype, st.sampled_from(MATRICES), special=False))
    ours = into(x)
    for full in (True, False):
        wanted, found = (
            np.linalg.svd(x, full_matrices=full),
            xp.linalg.svd(ours, full_matrices=full),
        )
        assert found._fields == wanted._fields
        for f, w in zip(found, wanted, strict=True):
            assert (f.shape, f.dtype) == (w.shape, w.dtype)
        same(found.S, wanted.S, loose=True)
    agree("svdvals", x, of="linalg", loose=True)
    for mode in ("reduced", "complete"):
        q, r = xp.linalg.qr(ours, mode=mode)
        assert [v.shape for v in (q, r)] == [v.shape for v in np.linalg.qr(x, mode=mode)]
        np.testing.assert_allclose((q @ r).numpy(), x, atol=1e-3)
        np.testing.assert_allclose(r.numpy(), np.triu(r.numpy()))
    stacked = np.full(x.shape[:-2], 0.25)
    for rtol in (0.25, stacked):
        agree("matrix_rank", x, rtol=rtol, of="linalg", as_dtype="int64")
        agree("pinv", x, rtol=rtol, of="linalg", loose=True)
    for order in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf):
        for keepdims in (False, True):
            agree("matrix_norm", x, ord=order, keepdims=keepdims, of="linalg", loose=True)


@pytest.mark.parametrize("order", [0, 1, 2, 3, -1, -2, 2.5, 0.5, math.inf, -math.inf])
@examined
@given(st.data())
def test_vector_norms(order: float, data: Any) -> None:
    """Any order, any axes; the norm of no elements is zero, or what has no answer is refused."""
    dtype = data.draw(st.sampled_from(FLOATING))
    x = data.draw(arrays(dtype, special=False))
    axes = [None, *range(-x.ndim, x.ndim), *itertools.combinations(range(x.ndim), 2)]
    named = {"axis": data.draw(st.sampled_from(axes)), "keepdims": data.draw(st.booleans())}
    if order == -math.inf and not x.size:
        return
    real = np.abs(x).dtype
    agree("vector_norm", x, ord=order, **named, of="linalg", loose=True, as_dtype=real)


@pytest.mark.parametrize("dtype", ALL)
@examined
@given(st.data())
def test_diagonals(dtype: str, data: Any) -> None:
    """`diagonal` and `trace` of any offset; small integers are summed as default ones."""
    x = data.draw(arrays(dtype, st.sampled_from(MATRICES), special=False))
    offset = data.draw(st.integers(-4, 4))
    agree("diagonal", x, offset=offset, of="linalg")
    agree("matrix_transpose", x, of="linalg")
    if dtype != "bool":
        agree("trace", x, offset=offset, of="linalg", as_dtype=summed_dtype(dtype), loose=True)


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
@examined
@given(st.data())
def test_transforms_of_one_axis(name: str, data: Any) -> None:
    """Any length, axis and norm; float32 gives complex64, and complex64 float32."""
    dtype = data.draw(st.sampled_from(FLOATS if name in {"rfft", "ihfft"} else FLOATING))
    x = data.draw(arrays(dtype, st.sampled_from([(4,), (5,), (3, 4), (2, 3, 2)]), special=False))
    named = {
        "n": data.draw(st.sampled_from([None, 2, 3, 6])),
        "axis": data.draw(st.integers(-x.ndim, x.ndim - 1)),
        "norm": data.draw(st.sampled_from(["backward", "ortho", "forward"])),
    }
    agree(name, x, **named, of="fft", loose=True)


@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
@examined
@given(st.data())
def test_transforms_of_several_axes(name: str, data: Any) -> None:
    """Any axes, with sizes of their own or those that are there."""
    dtype = data.draw(st.sampled_from(FLOATS if name == "rfftn" else FLOATING))
    x = data.draw(arrays(dtype, st.sampled_from([(4,), (3, 4), (2, 3, 2)]), special=False))
    several = [c for n in range(1, x.ndim + 1) for c in itertools.permutations(range(x.ndim), n)]
    axes = data.draw(st.sampled_from([None, *several]))
    sizes = None if axes is None else data.draw(st.sampled_from([None, (3,) * len(axes)]))
    norm = data.draw(st.sampled_from(["backward", "ortho", "forward"]))
    agree(name, x, s=sizes, axes=axes, norm=norm, of="fft", loose=True)


@examined
@given(st.data())
def test_shifts(data: Any) -> None:
    """`fftshift` and `ifftshift` turn any axes of any dtype that transforms have."""
    shapes = st.sampled_from([(1,), (5,), (4,), (2, 3), (2, 3, 4)])
    x = data.draw(arrays(data.draw(st.sampled_from([*FLOATS, *COMPLEX])), shapes))
    axes = data.draw(st.sampled_from([None, *range(-x.ndim, x.ndim), tuple(range(x.ndim))]))
    for name in ("fftshift", "ifftshift"):
        agree(name, x, axes=axes, of="fft")
