"""Indexing, reading and writing: integers, slices, `...`, None, masks and integer arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.standard.arrays import ALL, INTEGERS, arrays, elements, examined, into, promoted, same

import polyop as xp

#: Indexing has one function, and many keys.
thoroughly = settings(examined, max_examples=80)


def translated(key: Any) -> Any:
    """Give the arrays in a key as tensors."""
    return tuple(map(into, key)) if isinstance(key, tuple) else into(key)


def keys(shape: tuple[int, ...]) -> Any:
    """Give a strategy of keys of every kind for a shape."""
    basic = hnp.basic_indices(shape, allow_newaxis=True)
    masks = st.integers(0, len(shape)).flatmap(lambda n: hnp.arrays(bool, shape[:n]))
    kinds = [basic, masks]
    if shape and all(shape):
        kinds.append(hnp.integer_array_indices(shape))
        kinds.append(st.tuples(*[_integer_or_array(n) for n in shape]))
    return st.one_of(*kinds)


def _integer_or_array(n: int) -> Any:
    """What 2024.12 adds: integers and integer arrays, that broadcast, for each axis."""
    array = hnp.arrays(
        np.int64, st.sampled_from([(), (2,), (2, 1)]), elements=st.integers(-n, n - 1)
    )
    return st.one_of(st.integers(-n, n - 1), array)


@thoroughly
@given(st.data())
def test_reading(data: Any) -> None:
    """Every key gives the elements, the shape and the dtype that it gives in NumPy."""
    x = data.draw(arrays(data.draw(st.sampled_from(ALL))))
    key = data.draw(keys(x.shape))
    same(into(x)[translated(key)], x[key])


@thoroughly
@given(st.data())
def test_writing(data: Any) -> None:
    """Every key writes a number, or an array that broadcasts, of this dtype or a lower one."""
    dtype = data.draw(st.sampled_from(ALL))
    x = data.draw(arrays(dtype))
    key = data.draw(keys(x.shape))
    there = x[key].shape
    lower = data.draw(st.sampled_from([d for d in ALL if promoted(dtype, d) == dtype]))
    shapes = st.sampled_from([there, there[1:], ()])
    value = data.draw(st.one_of(elements(dtype), arrays(lower, shapes)))
    wanted, found = x.copy(), into(x)
    wanted[key] = value
    found[translated(key)] = into(value)
    same(found, wanted)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_an_index_may_have_any_integer_dtype(dtype: str) -> None:
    """Integer arrays index whatever their width, without axes too."""
    x = xp.arange(5)
    assert x[xp.asarray(2, dtype=dtype)].item() == 2
    assert x[xp.asarray([2, 3], dtype=dtype)].tolist() == [2, 3]
    assert xp.take(x, xp.asarray([2, 3], dtype=dtype)).tolist() == [2, 3]


OUT = [
    5, -3, (0, 7), (0, 0, 0), (..., 5), (slice(None), 3), np.asarray([5]),
    (np.asarray([0]), np.asarray([3])), np.asarray([True]), np.ones((2, 4), bool),
]  # fmt: skip


@pytest.mark.parametrize("key", OUT, ids=repr)
def test_what_is_not_there_is_an_index_error(key: Any) -> None:
    """Reading and writing past the end, too many indices and masks that do not fit."""
    x = xp.ones((2, 3))
    with pytest.raises(IndexError):
        x[translated(key)]
    with pytest.raises(IndexError):
        x[translated(key)] = 0.0
    same(x, np.ones((2, 3), np.float32))


@pytest.mark.parametrize("key", ["a", 1.5, np.asarray([1.5])], ids=repr)
def test_what_is_no_index_is_refused(key: Any) -> None:
    """Text and floats are no indices."""
    with pytest.raises(TypeError):
        xp.ones((2, 3))[translated(key)]


class Second:
    """An object that stands for an integer."""

    def __index__(self) -> int:
        return 1


def test_objects_that_stand_for_integers_are_indices() -> None:
    """What has `__index__` indexes, and bounds a slice, as in Python's lists."""
    x = xp.arange(6).reshape((3, 2))
    assert x[Second()].tolist() == x[1].tolist() == x[np.int8(1)].tolist() == [2, 3]
    assert x[Second() :].tolist() == x[np.int8(1) :].tolist() == [[2, 3], [4, 5]]
    assert x[: Second(), Second()].tolist() == [1]
    assert x[:: Second()].shape == (3, 2)
    assert x[xp.asarray(1) :].tolist() == [[2, 3], [4, 5]]


@examined
@given(st.data())
def test_take(data: Any) -> None:
    """`take` and `take_along_axis` read along one axis, from the end for negative indices."""
    dtype = data.draw(st.sampled_from(ALL))
    x = data.draw(arrays(dtype, st.sampled_from([(4,), (2, 3), (2, 3, 2)])))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    n = x.shape[axis]
    places = data.draw(hnp.arrays(np.int64, st.tuples(st.integers(0, 4)),
                                  elements=st.integers(-n, n - 1)))  # fmt: skip
    same(xp.take(into(x), into(places), axis=axis), np.take(x, places, axis=axis))
    shape = list(x.shape)
    shape[axis] = 3
    along = data.draw(hnp.arrays(np.int64, tuple(shape), elements=st.integers(-n, n - 1)))
    found = xp.take_along_axis(into(x), into(along), axis=axis)
    same(found, np.take_along_axis(x, along, axis=axis))
    if axis in {-1, x.ndim - 1}:
        same(xp.take_along_axis(into(x), into(along)), np.take_along_axis(x, along, axis=-1))


def test_take_without_an_axis() -> None:
    """Only an array of one axis may leave the axis out; places may have several axes."""
    assert xp.take(xp.arange(3), xp.asarray([2, 0])).tolist() == [2, 0]
    assert xp.take(xp.arange(3), xp.asarray([[2], [0]]), axis=0).shape == (2, 1)
    with pytest.raises(ValueError, match="which"):
        xp.take(xp.ones((2, 2)), xp.asarray([0]))
