"""Creation functions: shapes, default dtypes, NumPy's elements, and what data may be."""

from __future__ import annotations

import array
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.standard.arrays import (
    ALL,
    COMPLEX,
    FLOATS,
    INTEGERS,
    NUMERIC,
    SHAPES,
    agree,
    arrays,
    elements,
    examined,
    into,
    same,
)

import polyop as xp

DEFAULTS = xp.__array_namespace_info__().default_dtypes()
FLOAT, INT, COMPLEX_DEFAULT = (
    DEFAULTS[k] for k in ("real floating", "integral", "complex floating")
)


def default_of(*numbers: Any) -> Any:
    """Give the dtype of new tensors of such Python numbers."""
    kinds = set(map(type, numbers))
    order = [(complex, COMPLEX_DEFAULT), (float, FLOAT), (int, INT)]
    return next((dtype for kind, dtype in order if kind in kinds), np.dtype("bool"))


@pytest.mark.parametrize("name", ["zeros", "ones"])
@examined
@given(st.data())
def test_zeros_and_ones(name: str, data: Any) -> None:
    """Shapes are numbers or tuples, by position or name; the default dtype is the real one."""
    shape = data.draw(st.one_of(SHAPES, st.integers(0, 3)))
    dtype = data.draw(st.sampled_from([None, *ALL]))
    ours, theirs = getattr(xp, name), getattr(np, name)
    wanted = theirs(shape, dtype or FLOAT)
    same(ours(shape, dtype=dtype), wanted)
    same(ours(shape=shape, dtype=dtype, device=xp.zeros(1).device), wanted)
    like = getattr(xp, f"{name}_like")
    same(like(into(wanted)), wanted)
    other = data.draw(st.sampled_from(ALL))
    same(like(into(wanted), dtype=np.dtype(other), device=None), theirs(wanted.shape, other))
    for made in (xp.empty(shape, dtype=dtype), xp.empty_like(into(wanted))):
        assert (made.shape, made.dtype) == (wanted.shape, wanted.dtype)


@examined
@given(st.data())
def test_full(data: Any) -> None:
    """Without a dtype the value says it: bool, or the default of its kind."""
    shape, dtype = data.draw(SHAPES), data.draw(st.sampled_from(ALL))
    value = data.draw(elements(dtype))
    as_number = np.dtype(dtype).type(value).item()
    same(xp.full(shape, as_number, dtype=dtype), np.full(shape, as_number, dtype))
    if not (isinstance(as_number, int) and as_number >= 2**63):
        wanted = np.full(shape, as_number, default_of(as_number))
        same(xp.full(shape, fill_value=as_number), wanted)
    base = np.zeros(shape, dtype)
    same(xp.full_like(into(base), as_number), np.full_like(base, as_number))
    same(xp.full_like(into(base), fill_value=1, dtype="int16"), np.full_like(base, 1, "int16"))


@examined
@given(st.data())
def test_arange(data: Any) -> None:
    """Integers give the default integer, floats the default real dtype; the end is left out."""
    number = data.draw(st.sampled_from([st.integers(-9, 9), st.integers(-36, 36).map(_quarter)]))
    start, stop, step = (data.draw(number) for _ in range(3))
    step = step or 1
    wanted = np.arange(start, stop, step)
    same(xp.arange(start, stop, step), wanted.astype(default_of(start, stop, step)))
    same(xp.arange(start, stop=stop, step=step, dtype="float64"), wanted.astype("float64"))
    same(xp.arange(stop), np.arange(stop).astype(default_of(stop)))
    if isinstance(start, int):
        dtype = data.draw(st.sampled_from(["int8", "int32", "int64", "float32"]))
        same(xp.arange(start, stop, step, dtype=dtype), np.arange(start, stop, step, dtype))


def _quarter(n: int) -> float:
    return n / 4


@examined
@given(st.data())
def test_linspace(data: Any) -> None:
    """So many numbers from one to the other, the last one perhaps left out."""
    start, stop = (data.draw(elements("float64", special=False)) for _ in range(2))
    num, endpoint = data.draw(st.integers(0, 7)), data.draw(st.booleans())
    dtype = data.draw(st.sampled_from([None, *FLOATS, *COMPLEX]))
    wanted = np.linspace(start, stop, num, endpoint=endpoint)
    found = xp.linspace(start, stop, num=num, dtype=dtype, endpoint=endpoint)
    same(found, wanted.astype(dtype or FLOAT), loose=True)
    found = xp.linspace(start, stop * 1j, num, endpoint=endpoint)
    wanted = np.linspace(start, stop * 1j, num, endpoint=endpoint)
    same(found, wanted.astype(COMPLEX_DEFAULT), loose=True)


@examined
@given(st.data())
def test_eye_and_triangles(data: Any) -> None:
    """Diagonals may lie outside; a stack of matrices is cut matrix by matrix."""
    rows, columns = data.draw(st.integers(0, 4)), data.draw(st.sampled_from([None, 0, 2, 5]))
    k, dtype = data.draw(st.integers(-6, 6)), data.draw(st.sampled_from(ALL))
    same(xp.eye(rows, columns, k=k), np.eye(rows, columns, k).astype(FLOAT))
    same(xp.eye(rows, columns, k=k, dtype=dtype), np.eye(rows, columns, k, dtype))
    x = data.draw(arrays(dtype, st.sampled_from([(3, 3), (2, 4), (0, 2), (2, 3, 2)])))
    for name in ("tril", "triu"):
        same(getattr(xp, name)(into(x), k=k), getattr(np, name)(x, k))


@examined
@given(st.data())
def test_meshgrid(data: Any) -> None:
    """Grids of any number of axes, none among them, in both orders, keep the dtype."""
    dtype = data.draw(st.sampled_from(NUMERIC))
    axes = data.draw(st.lists(arrays(dtype, st.tuples(st.integers(0, 3))), max_size=3))
    for indexing in ("xy", "ij"):
        found = xp.meshgrid(*map(into, axes), indexing=indexing)
        wanted = np.meshgrid(*axes, indexing=indexing)
        for f, w in zip(found, wanted, strict=True):
            same(f, w)


@examined
@given(st.data())
def test_asarray_of_python_numbers(data: Any) -> None:
    """Numbers, and nested sequences of them, have the default dtype of the greatest kind."""
    dtype = data.draw(st.sampled_from(["bool", "int64", "float64", "complex128"]))
    x = data.draw(arrays(dtype))
    wanted = x.astype(default_of(x.dtype.type(0).item()))
    if x.size:
        same(xp.asarray(x.tolist()), wanted)
        same(xp.asarray(x.tolist(), dtype=dtype, copy=True), x)
    else:
        assert xp.asarray(x.tolist()).dtype == FLOAT
    with pytest.raises(ValueError, match="cannot be shared"):
        xp.asarray(x.tolist(), copy=False)


@examined
@given(st.data())
def test_asarray_copies_as_it_is_told(data: Any) -> None:
    """`copy=True` never shares, `copy=False` always, of tensors, arrays and buffers alike."""
    dtype = data.draw(st.sampled_from(ALL))
    x = data.draw(arrays(dtype, st.sampled_from([(3,), (2, 3)])))
    for obj in (x, xp.asarray(x), memoryview(x)):
        for copy in (None, True, False):
            found = xp.asarray(obj, copy=copy)
            same(found, x)
            assert np.may_share_memory(found.numpy(), x) is (copy is not True)
        same(xp.asarray(obj, dtype=dtype, copy=False), x)
        other = "float64" if dtype != "float64" else "complex128"
        if np.can_cast(dtype, other):
            same(xp.asarray(obj, dtype=other), x.astype(other))
            with pytest.raises(ValueError, match=r"copy|shared"):
                xp.asarray(obj, dtype=other, copy=False)


@pytest.mark.parametrize("code", "bBhHiIlLqQfd")
def test_asarray_of_a_buffer_keeps_its_dtype(code: str) -> None:
    """A buffer says what its elements are; no default is put in their place."""
    obj = array.array(code, [1, 2, 3])
    found = xp.asarray(obj)
    assert found.dtype == np.asarray(obj).dtype
    shared = xp.asarray(obj, copy=False)
    shared[0] = 7
    assert obj[0] == 7
    assert found[0] == 7


def test_asarray_of_another_librarys_array_keeps_its_dtype() -> None:
    """An object with `__array__` alone is an array, whose float64 is not narrowed."""

    class Other:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.asarray([1.0, 2.0], dtype)

    same(xp.asarray(Other()), np.asarray([1.0, 2.0]))


def test_asarray_of_sequences_of_tensors() -> None:
    """Tensors without axes stand for their elements, beside numbers too."""
    found = xp.asarray([[xp.asarray(1), 2], [3, xp.asarray(4)]])
    same(found, np.asarray([[1, 2], [3, 4]]))
    assert xp.asarray(2**64 - 1, dtype=xp.uint64).item() == 2**64 - 1
    assert math.isnan(xp.asarray(math.nan).item())


@pytest.mark.parametrize("data", ["a", None, [None], object()])
def test_asarray_refuses_what_is_no_data(data: Any) -> None:
    """Text, None and objects are no arrays of numbers."""
    with pytest.raises(TypeError, match="no array of numbers"):
        xp.asarray(data)


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("copy", [None, True, False])
def test_dlpack_goes_there_and_back(dtype: str, copy: Any) -> None:
    """Each dtype passes through `from_dlpack`, from ours and from NumPy's, as `copy` says."""
    x = np.ones((2, 3), dtype)
    for obj in (x, xp.asarray(x)):
        found = xp.from_dlpack(obj, copy=copy, device=xp.ones(1).device)
        same(found, x)
        assert np.may_share_memory(found.numpy(), x) is (copy is not True)
    np.testing.assert_array_equal(np.from_dlpack(xp.asarray(x), copy=copy), x)


def test_from_dlpack_refuses_what_has_none() -> None:
    """A number is no array of another library."""
    with pytest.raises(TypeError, match="has DLPack"):
        xp.from_dlpack(3)


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_defaults_agree_with_what_the_namespace_says(dtype: str) -> None:
    """The dtypes of `default_dtypes` are those of tensors that are made without one."""
    assert xp.ones(1).dtype == xp.arange(1.0).dtype == xp.asarray(1.5).dtype == FLOAT
    assert xp.arange(1).dtype == xp.asarray(1).dtype == INT
    assert xp.asarray(1j).dtype == xp.full(1, 1j).dtype == COMPLEX_DEFAULT
    x = xp.ones(3, dtype=dtype)
    for made in (xp.argmax(x), xp.argsort(x), xp.nonzero(x)[0], xp.searchsorted(x, x)):
        assert made.dtype == DEFAULTS["indexing"]


@pytest.mark.parametrize("name", ["fftfreq", "rfftfreq"])
def test_frequencies_have_the_default_dtype(name: str) -> None:
    """The two functions that make frequencies are creation functions too."""
    assert getattr(xp.fft, name)(4).dtype == FLOAT
    assert getattr(xp.fft, name)(4, dtype=xp.float64).dtype == "float64"
    agree(name, 5, d=0.5, of="fft", as_dtype=FLOAT, loose=True)
