"""Statistics, searching, sorting, sets and utilities: any axes, any shape, NumPy's results."""

from __future__ import annotations

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
    REAL,
    agree,
    arrays,
    axes_of,
    examined,
    into,
    quiet,
    same,
    summed_dtype,
)

import polyop as xp

DTYPES = {
    "sum": NUMERIC, "prod": NUMERIC, "mean": FLOATING, "std": FLOATS, "var": FLOATS, "max": REAL,
    "min": REAL, "all": ALL, "any": ALL, "count_nonzero": ALL, "argmax": REAL, "argmin": REAL,
}  # fmt: skip


@pytest.mark.parametrize("name", DTYPES)
@examined
@given(st.data())
def test_reductions(name: str, data: Any) -> None:
    """One axis, several, none or all, kept or not; what NumPy refuses is a `ValueError`."""
    dtype = data.draw(st.sampled_from(DTYPES[name]))
    x = data.draw(arrays(dtype, special=name not in {"sum", "prod", "mean", "std", "var"}))
    named: dict[str, Any] = {
        "axis": data.draw(axes_of(x.ndim, several=not name.startswith("arg"))),
        "keepdims": data.draw(st.booleans()),
    }
    if name in {"std", "var"}:
        correction = data.draw(st.sampled_from([0, 1, 0.0, 1.5]))
        wanted = quiet(getattr(np, name), x, ddof=correction, **named)
        same(quiet(getattr(xp, name), into(x), correction=correction, **named), wanted, loose=True)
        return
    try:
        quiet(getattr(np, name), x, **named)
    except ValueError:
        with pytest.raises(ValueError, match="cannot compute"):
            getattr(xp, name)(into(x), **named)
        return
    if name == "count_nonzero":
        same(xp.count_nonzero(into(x), **named), np.sum(x != 0, dtype="int64", **named))
        return
    wanted = summed_dtype(dtype) if name in {"sum", "prod"} else None
    agree(name, x, **named, as_dtype=wanted, loose=name in {"sum", "prod", "mean"})


@pytest.mark.parametrize("name", ["sum", "prod", "cumulative_sum", "cumulative_prod"])
@examined
@given(st.data())
def test_sums_in_another_dtype(name: str, data: Any) -> None:
    """`dtype` says what is summed in and what comes out."""
    one = data.draw(st.sampled_from(NUMERIC))
    others = COMPLEX if one in COMPLEX else ["int64", *FLOATING]
    if one in FLOATS:
        others = FLOATING
    other = data.draw(st.sampled_from(others))
    x = data.draw(arrays(one, st.sampled_from([(3,), (2, 3)]), special=False))
    wanted = quiet(getattr(np, name), x, axis=0, dtype=other)
    same(quiet(getattr(xp, name), into(x), axis=0, dtype=np.dtype(other)), wanted, loose=True)


@pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod"])
@examined
@given(st.data())
def test_running_sums(name: str, data: Any) -> None:
    """Small integers become default ones; the initial element lengthens the axis by one."""
    dtype = data.draw(st.sampled_from(NUMERIC))
    x = data.draw(arrays(dtype, st.sampled_from([(4,), (0,), (2, 3), (2, 0, 3)]), special=False))
    axes = list(range(-x.ndim, x.ndim))
    axis = data.draw(st.sampled_from([None, *axes] if x.ndim == 1 else axes))
    initial = data.draw(st.booleans())
    named = {"axis": axis, "include_initial": initial}
    agree(name, x, **named, as_dtype=summed_dtype(dtype), loose=True)
    with pytest.raises(ValueError, match="needs an axis"):
        getattr(xp, name)(xp.ones((2, 2)))


@examined
@given(st.data())
def test_sorting(data: Any) -> None:
    """Both orders are stable: equal elements keep theirs, when descending too."""
    dtype = data.draw(st.sampled_from(REAL))
    x = data.draw(arrays(dtype, st.sampled_from([(5,), (0,), (3, 4), (2, 0), (2, 3, 2)])))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    descending = data.draw(st.booleans())
    named = {"axis": axis, "descending": descending}
    order = np.argsort(x, axis=axis, stable=True)
    if descending:
        backwards = np.argsort(np.flip(x, axis=axis), axis=axis, stable=True)
        order = np.flip(x.shape[axis] - 1 - backwards, axis=axis)
    same(xp.argsort(into(x), **named), order)
    wanted = np.take_along_axis(x, order, axis=axis)
    for stable in (True, False):
        np.testing.assert_array_equal(xp.sort(into(x), **named, stable=stable).numpy(), wanted)
    assert xp.sort(into(x), **named).dtype == dtype


@examined
@given(st.data())
def test_searchsorted(data: Any) -> None:
    """Places on both sides, of any shape, in an array that `sorter` puts in order."""
    dtype = data.draw(st.sampled_from(REAL))
    sorted_ = np.sort(data.draw(arrays(dtype, st.tuples(st.integers(0, 5)), special=False)))
    x = data.draw(arrays(dtype, special=False))
    side = data.draw(st.sampled_from(["left", "right"]))
    agree("searchsorted", sorted_, x, side=side, as_dtype="int64")
    order = np.asarray(data.draw(st.permutations(range(len(sorted_)))), dtype="int64")
    mixed = np.empty_like(sorted_)
    mixed[order] = sorted_
    agree("searchsorted", mixed, x, side=side, sorter=order, as_dtype="int64")


@examined
@given(st.data())
def test_sets(data: Any) -> None:
    """Unique elements, under NumPy's names; each `nan` is unique, signed zeros are not."""
    x = data.draw(arrays(data.draw(st.sampled_from(ALL))))
    ours, inverse = into(x), xp.unique_inverse(into(x))
    for name in ("unique_all", "unique_counts", "unique_inverse"):
        wanted, found = getattr(np, name)(x), getattr(xp, name)(ours)
        assert type(found)._fields == type(wanted)._fields
        for field in type(wanted)._fields:
            f, w = getattr(found, field).numpy(), getattr(wanted, field)
            assert (f.dtype, f.shape) == (w.dtype, w.shape)
            if field != "values":
                np.testing.assert_array_equal(f, w)
    values = xp.unique_values(ours)
    np.testing.assert_array_equal(np.sort(values.numpy()), np.sort(np.unique_values(x)))
    np.testing.assert_array_equal(inverse.values[inverse.inverse_indices].numpy(), x)


@examined
@given(st.data())
def test_nonzero_and_diff(data: Any) -> None:
    """One array of places for each axis; differences of any order, with ends put on."""
    x = data.draw(arrays(data.draw(st.sampled_from(ALL)), st.sampled_from([(4,), (0,), (3, 2)])))
    agree("nonzero", x)
    if x.dtype == bool:
        return
    axis, n = data.draw(st.integers(-x.ndim, x.ndim - 1)), data.draw(st.integers(0, 3))
    agree("diff", x, axis=axis, n=n)
    agree("diff", x, axis=axis, n=n, prepend=x, append=x)


def test_nonzero_needs_an_axis() -> None:
    """An array without axes has no places."""
    with pytest.raises(ValueError, match="each axis"):
        xp.nonzero(xp.asarray(1))


@pytest.mark.parametrize("name", ["sum", "max", "argmax", "sort", "argsort", "cumulative_sum"])
def test_an_axis_that_is_not_there_is_an_index_error(name: str) -> None:
    """Axes out of range are `IndexError` and `ValueError`, as NumPy's `AxisError` is both."""
    for error in (IndexError, ValueError):
        with pytest.raises(error, match="out of range for 2 axes"):
            getattr(xp, name)(xp.ones((2, 2)), axis=2)
