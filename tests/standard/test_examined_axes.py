"""Functions along axes and of shapes: every axis, in range and out of it, of every shape."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.standard.arrays import ALL, FLOATING, INTEGERS, NUMERIC, REAL, Array
from tests.standard.grid import SHAPES, differs, none, spread, values

import polyop as xp

#: One of each kind is enough where a dtype only goes along.
SOME = ["bool", "int8", "uint64", "float32", "complex128"]
REDUCTIONS = {
    **dict.fromkeys(["max", "min"], REAL),
    **dict.fromkeys(["all", "any", "count_nonzero"], ALL),
    **dict.fromkeys(["sum", "prod"], NUMERIC),
    **dict.fromkeys(["mean", "std", "var"], FLOATING),
}


def axes_of(ndim: int) -> list[Any]:
    """List None, no axis, each axis, pairs, and axes that are not there."""
    pairs = list(itertools.combinations(range(ndim), 2))[:3]
    return [None, (), *range(-ndim - 1, ndim + 1), *pairs, (0, 0), (-1, 0)]


def has_axis(x: Array, axis: Any) -> bool:
    """Tell whether an axis may be asked of NumPy: PyTorch's users name one where there is none."""
    return x.ndim > 0 or axis is None


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_along_every_axis(name: str) -> None:
    """Special values, empty shapes and bad axes: NumPy's result, or an error where it has one."""
    theirs = getattr(np, name)

    def reference(x: Array, axis: Any, keepdims: bool) -> Any:
        return theirs(x, axis=axis, keepdims=keepdims)

    def cases() -> Iterator[str]:
        for dtype in REDUCTIONS[name]:
            for shape in SHAPES if dtype in SOME else [(2, 3), (0, 3)]:
                for small in (True, False):
                    x = spread(dtype, shape, small)
                    for axis in filter(lambda a: has_axis(x, a), axes_of(x.ndim)):
                        for keep in (False, True):
                            named = {"axis": axis, "keepdims": keep}
                            yield differs(getattr(xp, name), reference, x, close=True, **named)

    none(cases())


@pytest.mark.parametrize("name", ["std", "var"])
def test_spreads_without_degrees_of_freedom(name: str) -> None:
    """Too great a correction divides by zero: infinite, or no number where all are equal."""

    def cases() -> Iterator[str]:
        for dtype in FLOATING:
            for shape in ((1,), (2,), (3,), (2, 3), (0,)):
                for correction in (0, 0.5, 1, 1.5, 2, 3, 7):
                    for small in (True, False):
                        named = {"correction": correction}
                        x = spread(dtype, shape, small)
                        yield differs(getattr(xp, name), getattr(np, name), x, close=True, **named)

    none(cases())
    equal = xp.ones(3)
    assert xp.isnan(getattr(xp, name)(equal, correction=3)).item()
    apart = xp.asarray([1.0, 2.0])
    for correction in (2, 2.5, 5):
        assert getattr(xp, name)(apart, correction=correction).item() == float("inf")
        assert (
            xp.vmap(lambda x, c=correction: getattr(xp, name)(x, correction=c))(
                xp.stack([apart, apart])
            ).tolist()
            == [float("inf")] * 2
        )


@pytest.mark.parametrize("name", ["sum", "prod", "cumulative_sum", "cumulative_prod"])
def test_sums_in_another_dtype(name: str) -> None:
    """`dtype` is what is computed in; without it small integers become the default ones."""

    def cases() -> Iterator[str]:
        for dtype in NUMERIC:
            for other in [None, *NUMERIC]:
                for start in (False, True) if name.startswith("cum") else (False,):
                    named: dict[str, Any] = {"dtype": None if other is None else np.dtype(other)}
                    named |= {"include_initial": True} if start else {}
                    x = spread(dtype, (4,), small=True)
                    yield differs(getattr(xp, name), getattr(np, name), x, close=True, **named)
                    x = spread(dtype, (2, 0), small=True)
                    named["axis"] = -1
                    yield differs(getattr(xp, name), getattr(np, name), x, close=True, **named)

    none(cases())


@pytest.mark.parametrize("name", ["sort", "argsort", "argmax", "argmin", "diff"])
def test_orders_along_every_axis(name: str) -> None:
    """Every axis of every shape, with infinities and NaN."""
    extra: list[dict[str, Any]] = [{"stable": True}] if "sort" in name else [{}]
    extra = [{"n": n} for n in (0, 1, 3)] if name == "diff" else extra

    def cases() -> Iterator[str]:
        for dtype in REAL:
            for shape in SHAPES[1:] if dtype in SOME else [(2, 3), (0, 3)]:
                x = spread(dtype, shape)
                for axis in range(-x.ndim - 1, x.ndim + 1):
                    for named in extra:
                        if named != {"n": 0}:
                            theirs = getattr(np, name)
                            yield differs(getattr(xp, name), theirs, x, axis=axis, **named)

    none(cases())


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("stable", [True, False])
def test_descending_orders(dtype: str, stable: bool) -> None:
    """Descending is the ascending order backwards; equal elements stay in order if it is stable."""
    row = values(dtype)
    x = np.tile(row[~np.isnan(row)], 3)
    ours = xp.asarray(x)
    found = xp.sort(ours, descending=True, stable=stable).numpy()
    np.testing.assert_array_equal(found, np.sort(x)[::-1])
    places = xp.argsort(ours, descending=True, stable=stable).numpy()
    np.testing.assert_array_equal(x[places], found)
    again = np.diff(places)[np.diff(found) == 0] if np.dtype(dtype).kind != "f" else []
    assert not stable or all(step > 0 for step in again)


MOVES = ["flip", "squeeze", "expand_dims", "unstack"]


@pytest.mark.parametrize("name", MOVES)
def test_moves_along_every_axis(name: str) -> None:
    """Axes in range and out of it, of shapes with no elements and with many axes."""

    def cases() -> Iterator[str]:
        for dtype in SOME:
            for shape in SHAPES[1:]:
                x = spread(dtype, shape)
                for axis in range(-x.ndim - 2, x.ndim + 2):
                    yield differs(getattr(xp, name), getattr(np, name), x, axis=axis)

    none(cases())


def test_rolls() -> None:
    """Shifts of any size, one or several, along any axes, of the flattened array without."""

    def cases() -> Iterator[str]:
        for shape in SHAPES:
            x = spread("int16", shape)
            axes = [None, *range(-x.ndim, x.ndim), (0, 0), (0, -1), (0,)] if x.ndim else [None]
            for axis in axes:
                for shift in (0, 1, -1, 5, -7, 1000, (1,), (2, -1), (1, 1)):
                    if axis is None and shift in {(2, -1), (1, 1)}:
                        continue  # NumPy rolls twice and adds the results
                    yield differs(xp.roll, np.roll, x, shift, axis=axis)

    none(cases())
    assert xp.roll(xp.arange(4), (1, 1)).tolist() == [2, 3, 0, 1]
    with pytest.raises(ValueError, match="one shift for each axis"):
        xp.roll(xp.ones((2, 2)), (1, 2, 3), axis=(0, 1))
    with pytest.raises(IndexError):
        xp.roll(xp.asarray(1.0), 1, axis=0)


def test_repetitions() -> None:
    """Numbers and arrays of numbers of any integer dtype; negative ones are refused."""

    def cases() -> Iterator[str]:
        for shape in SHAPES:
            x = spread("float32", shape)
            for axis in [None, *range(-x.ndim - 1, x.ndim + 1)]:
                for times in (0, 1, 3, -1, -2):
                    if x.size or times >= 0:
                        yield differs(xp.repeat, np.repeat, x, times, axis=axis)
                inside = axis is not None and -x.ndim <= axis < x.ndim
                n = x.size if axis is None else shape[axis] if inside and axis is not None else 2
                for dtype in INTEGERS[:-1] if x.ndim < 3 else ["int64"]:  # NumPy takes no uint64
                    each = (np.arange(n) % 3).astype(dtype)
                    yield differs(xp.repeat, np.repeat, x, each, axis=axis)
                yield differs(xp.repeat, np.repeat, x, np.arange(n + 2), axis=axis)
                yield differs(xp.repeat, np.repeat, x, np.asarray([2]), axis=axis)

    none(cases())
    for times in (-1, xp.asarray([-1, 2]), [1, 2, 3]):
        with pytest.raises(ValueError, match="not negative"):
            xp.repeat(xp.ones(2), times)
    one = xp.asarray(1.5)
    assert xp.repeat(one, 2).tolist() == xp.repeat(one, 2, axis=0).tolist() == [1.5, 1.5]
    assert xp.repeat(one, xp.asarray([2]), axis=-1).tolist() == [1.5, 1.5]


def test_tiles() -> None:
    """A number, fewer repetitions than axes, more, and none of an axis."""

    def cases() -> Iterator[str]:
        for shape in SHAPES:
            for times in ((), (2,), (0,), (1, 2), (2, 1, 2), (1,) * 9, 3, 0, (2, 0)):
                yield differs(xp.tile, np.tile, spread("complex64", shape), times)

    none(cases())


def test_as_many_axes_as_there_may_be() -> None:
    """What `capabilities` says holds: functions work with 64 axes."""
    most = xp.__array_namespace_info__().capabilities()["max dimensions"]
    x = xp.ones((1,) * most)
    assert xp.tile(x, (1,) * (most - 1) + (2,)).shape == (1,) * (most - 1) + (2,)
    assert xp.tile(xp.ones((1,) * 40), (1,) * most).ndim == most
    assert xp.repeat(x, 2, axis=5).shape == (1,) * 5 + (2,) + (1,) * (most - 6)
    for fn in (xp.flip, xp.sort, xp.cos, xp.matrix_transpose, xp.tril, xp.nonzero, repr):
        fn(x)
    assert xp.roll(x, 3, axis=most - 1).ndim == xp.concat([x, x], axis=-1).ndim == most
    assert xp.permute_dims(x, tuple(range(most))[::-1]).ndim == (x @ x).ndim == most
    assert xp.sum(x).item() == x[(0,) * most].item() == 1
    for fn in (lambda: x[None], lambda: xp.stack([x]), lambda: xp.ones((1,) * (most + 1))):
        with pytest.raises((ValueError, IndexError)):
            fn()


def test_reshapes() -> None:
    """Sizes that fit and that do not, one of them perhaps -1, with and without a copy."""
    sizes: list[Any] = [
        (), (1,), (-1,), (6,), (1, -1), (-1, 1, 1), (0, -1), (-1, -1), (7,), (0,), (3, 0), (2, 3),
        (3, 2), (6, 1), (-2, 3), 6, -1, 7,
    ]  # fmt: skip

    def cases() -> Iterator[str]:
        for shape in SHAPES:
            for size in sizes:
                x = spread("uint8", shape)
                for copy in (None, True, False):
                    yield differs(xp.reshape, np.reshape, x, size, copy=copy)
                yield differs(
                    lambda v, s=size: xp.reshape(v.T, s, copy=False),
                    lambda v, s=size: np.reshape(v.T, s, copy=False),
                    x,
                )

    none(cases())


def test_take_from_every_axis() -> None:
    """Places of any integer dtype, none, negative and not there; without axes there is one."""

    def cases() -> Iterator[str]:
        for shape in SHAPES[1:]:
            x = spread("float64", shape)
            for axis in range(-x.ndim - 1, x.ndim + 1):
                for places in ([0], [], [0, 0], [-1], [99], [-99]):
                    for dtype in ("int8", "int64") if x.size else ():
                        at = np.asarray(places, dtype)
                        yield differs(xp.take, np.take, x, at, axis=axis)
                along = np.zeros(shape, np.int64)
                yield differs(xp.take_along_axis, np.take_along_axis, x, along, axis=axis)

    none(cases())
    assert xp.take(xp.asarray(3.0), xp.asarray([0, 0]), axis=-1).tolist() == [3.0, 3.0]
    with pytest.raises(IndexError, match="out of bounds"):
        xp.take_along_axis(xp.arange(3), xp.asarray([3]))


def test_joins_of_every_two_dtypes() -> None:
    """`concat` and `stack` promote as NumPy does, and refuse shapes that do not fit."""

    def joined(name: str, of: Any) -> Any:
        return lambda x, y, axis=0: getattr(of, name)([x, y], axis=axis)

    def cases() -> Iterator[str]:
        for name in ("concat", "stack"):
            ours, theirs = joined(name, xp), joined(name, np)
            for one, other in itertools.product(ALL, ALL):
                x, y = spread(one, (2, 3), True), spread(other, (2, 3), True)
                yield differs(ours, theirs, x, y)
                if name == "concat":
                    yield differs(ours, theirs, x, y[0], axis=None)
                yield differs(ours, theirs, x, y[0])
            for shape in SHAPES:
                x = spread("int32", shape)
                for axis in range(-x.ndim - 2, x.ndim + 2):
                    yield differs(ours, theirs, x, x, axis=axis)

    none(cases())
