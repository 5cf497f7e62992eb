"""Manipulation functions: NumPy's elements in NumPy's shapes, with the dtype kept or promoted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.standard.arrays import (
    ALL,
    SHAPES,
    agree,
    arrays,
    axes_of,
    examined,
    into,
    pairs_of,
    promoted,
    same,
)

import polyop as xp

any_dtype = st.sampled_from(ALL)


@examined
@given(st.data())
def test_axes_come_and_go(data: Any) -> None:
    """`expand_dims`, `squeeze`, `moveaxis`, `permute_dims` and `matrix_transpose`."""
    x = data.draw(arrays(data.draw(any_dtype)))
    agree("expand_dims", x, axis=data.draw(st.integers(-x.ndim - 1, x.ndim)))
    single = tuple(i for i, n in enumerate(x.shape) if n == 1)
    same(xp.squeeze(into(x), single), np.squeeze(x, single))
    same(xp.squeeze(into(x), axis=tuple(i - x.ndim for i in single)), np.squeeze(x, single))
    order = tuple(data.draw(st.permutations(range(x.ndim))))
    same(xp.permute_dims(into(x), axes=order), np.permute_dims(x, order))
    if x.ndim:
        at = st.integers(-x.ndim, x.ndim - 1)
        agree("moveaxis", x, data.draw(at), data.draw(at))
        same(xp.moveaxis(into(x), order, tuple(range(x.ndim))), np.permute_dims(x, order))
    if x.ndim > 1:
        agree("matrix_transpose", x)


def test_errors_of_axes_are_those_of_the_standard() -> None:
    """A size that is not one is a `ValueError`, an axis that is not there an `IndexError`."""
    x = xp.ones((2, 3))
    with pytest.raises(ValueError, match="size 2"):
        xp.squeeze(x, axis=0)
    for axis in (3, -4):
        with pytest.raises(IndexError):
            xp.expand_dims(x, axis=axis)
    calls: list[Any] = [
        lambda: xp.moveaxis(x, 0, 5), lambda: xp.flip(x, axis=2), lambda: xp.unstack(x, axis=2),
        lambda: xp.roll(x, 1, axis=2), lambda: xp.concat([x, x], axis=2),
        lambda: xp.stack([x, x], axis=3), lambda: xp.unstack(xp.asarray(1)),
        lambda: xp.repeat(x, 2, axis=2),
    ]  # fmt: skip
    for fn in calls:
        with pytest.raises(IndexError):
            fn()
    for fn in (lambda: xp.concat([x, xp.ones((2, 2))]), lambda: xp.stack([x, xp.ones(2)]),
               lambda: xp.permute_dims(x, (0, 0)), lambda: xp.permute_dims(x, (0,)),
               lambda: xp.reshape(x, (4, 2))):  # fmt: skip
        with pytest.raises(ValueError):  # noqa: PT011 - each has a text of its own
            fn()


@examined
@given(st.data())
def test_reshape(data: Any) -> None:
    """One size may be -1; `copy` says whether memory is shared."""
    x = data.draw(arrays(data.draw(any_dtype)))
    shapes: list[Any] = [(x.size,), (1, x.size), (-1,), (x.size, 1, -1) if x.size else (0, 3)]
    shape = data.draw(st.sampled_from(shapes))
    for copy in (None, True, False):
        ours = into(x)
        found = xp.reshape(ours, shape, copy=copy)
        same(found, np.reshape(x, shape))
        if x.size:
            assert np.may_share_memory(found.numpy(), ours.numpy()) is (copy is not True)
    with pytest.raises(ValueError, match="no view"):
        xp.reshape(xp.ones((2, 3)).T, (6,), copy=False)


@examined
@given(st.data())
def test_flip_and_roll(data: Any) -> None:
    """Along one axis, several, or all; an axis of a roll may come twice."""
    x = data.draw(arrays(data.draw(any_dtype)))
    agree("flip", x, axis=data.draw(axes_of(x.ndim, several=True)))
    shift = data.draw(st.integers(-7, 7))
    agree("roll", x, shift, axis=data.draw(axes_of(x.ndim, several=False)))
    same(xp.roll(into(x), shift=shift), np.roll(x, shift))
    if x.ndim > 1:
        for axis in ((0, 1), (0, 0), (-1, 1)):
            agree("roll", x, (shift, 2), axis=axis)
            agree("roll", x, shift, axis=axis)


@examined
@given(st.data())
def test_repeat_and_tile(data: Any) -> None:
    """A number of times for all, or an array with one for each place."""
    x = data.draw(arrays(data.draw(any_dtype)))
    axis = data.draw(axes_of(x.ndim, several=False))
    agree("repeat", x, data.draw(st.integers(0, 3)), axis=axis)
    n = x.size if axis is None else x.shape[axis]
    times = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    for repeats in (np.asarray(times, dtype="int64"), np.asarray([2]), np.asarray(2)):
        agree("repeat", x, repeats, axis=axis)
    agree("tile", x, data.draw(st.lists(st.integers(0, 2), max_size=4).map(tuple)))


@examined
@given(st.data())
def test_joining(data: Any) -> None:
    """`concat` and `stack` promote; without an axis, `concat` joins what is flattened."""
    one, other = data.draw(pairs_of(ALL))
    x = data.draw(arrays(one))
    y = data.draw(arrays(other, st.just(x.shape)))
    for axis in [None, *range(-x.ndim, x.ndim)]:
        for several in ([x, y], (x, y, x), [x]):
            agree("concat", several, axis=axis)
    for axis in range(-x.ndim - 1, x.ndim + 1):
        agree("stack", [x, y], axis=axis)
    if x.ndim:
        assert xp.concat([into(x), into(y)]).dtype == promoted(one, other)
        agree("unstack", x, axis=data.draw(st.integers(-x.ndim, x.ndim - 1)))


@examined
@given(st.data())
def test_broadcast_to(data: Any) -> None:
    """An array is repeated along new axes, and along those of size one."""
    x = data.draw(arrays(data.draw(any_dtype), SHAPES))
    agree("broadcast_to", x, (2, *x.shape))
    agree("broadcast_arrays", x, np.zeros((2, *[1] * x.ndim), dtype="int8"))
