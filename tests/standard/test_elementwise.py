"""Elementwise functions and operators: NumPy's elements, the standard's dtypes, any shape."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.standard.arrays import (
    ALL,
    BOOL,
    COMPLEX,
    FLOATING,
    FLOATS,
    INTEGERS,
    NUMERIC,
    REAL,
    Array,
    agree,
    arrays,
    examined,
    into,
    number_beside,
    pairs_of,
    promoted,
    quiet,
    same,
)

import polyop as xp

OF_ONE = {
    **dict.fromkeys("abs conj negative positive real sign square round".split(), NUMERIC),
    **dict.fromkeys("isfinite isinf isnan".split(), NUMERIC),
    **dict.fromkeys(
        """acos acosh asin asinh atan atanh cos cosh exp expm1 log log1p log2 log10 reciprocal
        sin sinh sqrt tan tanh""".split(),
        FLOATING,
    ),
    **dict.fromkeys("ceil floor trunc".split(), REAL),
    "bitwise_invert": [*BOOL, *INTEGERS],
    "imag": COMPLEX,
    "logical_not": BOOL,
    "signbit": FLOATS,
}
OF_TWO = {
    **dict.fromkeys("add multiply subtract pow".split(), NUMERIC),
    **dict.fromkeys("atan2 copysign hypot logaddexp nextafter".split(), FLOATS),
    **dict.fromkeys("bitwise_and bitwise_or bitwise_xor".split(), [*BOOL, *INTEGERS]),
    **dict.fromkeys("bitwise_left_shift bitwise_right_shift".split(), INTEGERS),
    **dict.fromkeys("equal not_equal".split(), ALL),
    **dict.fromkeys("greater greater_equal less less_equal".split(), REAL),
    **dict.fromkeys("floor_divide remainder maximum minimum".split(), REAL),
    **dict.fromkeys("logical_and logical_or logical_xor".split(), BOOL),
    "divide": FLOATING,
}
OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "pow", "and_": "bitwise_and",
    "or_": "bitwise_or", "xor": "bitwise_xor", "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift", "eq": "equal", "ne": "not_equal", "lt": "less",
    "le": "less_equal", "gt": "greater", "ge": "greater_equal",
}  # fmt: skip
COMPARING = {"equal", "not_equal", "greater", "greater_equal", "less", "less_equal"}


@pytest.mark.parametrize("name", OF_ONE)
@examined
@given(st.data())
def test_functions_of_one_array(name: str, data: Any) -> None:
    """Each gives NumPy's elements, special ones too, in any shape; rounding keeps integers."""
    dtype = data.draw(st.sampled_from(OF_ONE[name]))
    x = data.draw(arrays(dtype))
    keeps = name in {"ceil", "floor", "trunc", "round"} and dtype in INTEGERS
    agree(name, x, as_dtype=dtype if keeps else None)


@pytest.mark.parametrize("name", OF_TWO)
@examined
@given(st.data())
def test_functions_of_two_arrays(name: str, data: Any) -> None:
    """Each broadcasts, promotes by the standard's table, and gives NumPy's elements."""
    one, other = data.draw(pairs_of(OF_TWO[name]))
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_side=3, max_dims=3))
    x, y = (data.draw(arrays(d, s)) for d, s in zip((one, other), shapes.input_shapes, strict=True))
    y = suited(name, y, promoted(one, other))
    agree(name, x, y)
    found = quiet(getattr(xp, name), into(x), into(y))
    boolean = name in COMPARING or name.startswith("logical")
    assert found.dtype == ("bool" if boolean else promoted(one, other))


def suited(name: str, y: Any, dtype: str | None) -> Any:
    """Keep shifts and powers of integers where NumPy has an answer."""
    small = name.endswith("_shift") or (name == "pow" and dtype in INTEGERS)
    return np.asarray(np.clip(y, 0, 6)) if small and isinstance(y, np.ndarray) else y


@pytest.mark.parametrize("name", OF_TWO)
@examined
@given(st.data())
def test_functions_of_an_array_and_a_number(name: str, data: Any) -> None:
    """A Python number on either side takes the dtype of the array."""
    dtype = data.draw(st.sampled_from(OF_TWO[name]))
    x = suited(name, data.draw(arrays(dtype)), dtype)
    number = data.draw(number_beside(dtype))
    for args in ((x, number), (number, x)):
        agree(name, *args)
    found = quiet(getattr(xp, name), into(x), number)
    assert found.dtype == ("bool" if name in COMPARING or name.startswith("logical") else dtype)


@pytest.mark.parametrize("name", OPERATORS)
@examined
@given(st.data())
def test_operators(name: str, data: Any) -> None:
    """Operators are their functions, with arrays and numbers on either side, and in place."""
    fn, function = getattr(operator, name), OPERATORS[name]
    one, other = data.draw(pairs_of(OF_TWO[function]))
    x, y = data.draw(arrays(one, (3,))), data.draw(arrays(other, st.sampled_from([(), (3,)])))
    y = suited(function, y, promoted(one, other))
    same(quiet(fn, into(x), into(y)), quiet(fn, x, y))
    number = data.draw(number_beside(one))
    base = suited(function, x, one)
    same(quiet(fn, into(base), number), quiet(fn, base, number))
    same(quiet(fn, number, into(base)), quiet(fn, number, base))
    if function not in COMPARING:
        _in_place(getattr(operator, f"i{name.rstrip('_')}"), fn, base, number)
        if promoted(one, other) == one:
            _in_place(getattr(operator, f"i{name.rstrip('_')}"), fn, x, y)


def _in_place(write: Callable[..., Any], fn: Callable[..., Any], x: Array, y: Any) -> None:
    """Writing keeps the object and its dtype, and gives what the operator gives."""
    left = kept = into(x)
    left = quiet(write, left, into(y))
    assert left is kept
    same(left, quiet(fn, x, y))


@pytest.mark.parametrize("fn", [operator.neg, operator.pos, operator.abs, operator.invert])
@examined
@given(st.data())
def test_operators_of_one_array(fn: Any, data: Any) -> None:
    """`-x`, `+x`, `abs(x)` and `~x` give tensors of the same shape and NumPy's elements."""
    inverts = fn is operator.invert
    dtype = data.draw(st.sampled_from([*BOOL, *INTEGERS] if inverts else NUMERIC))
    x = data.draw(arrays(dtype))
    same(quiet(fn, into(x)), quiet(fn, x))


@examined
@given(st.data())
def test_clip(data: Any) -> None:
    """Each limit is None, a number or an array that broadcasts; the dtype is that of `x`."""
    dtype = data.draw(st.sampled_from(REAL))
    x = data.draw(arrays(dtype, (2, 3)))
    limits = st.one_of(
        st.none(), st.integers(0, 3), arrays(dtype, st.sampled_from([(), (3,), (2, 1)]), False)
    )
    low, high = data.draw(limits), data.draw(limits)
    wanted = x if low is None and high is None else np.clip(x, low, high)
    # Of two zeros that differ in sign either may be taken: the elements are compared alone.
    for found in (
        xp.clip(into(x), into(low), into(high)),
        xp.clip(into(x), min=into(low), max=into(high)),
    ):
        same(found, wanted, loose=True)


@examined
@given(st.data())
def test_where(data: Any) -> None:
    """`where` broadcasts three arrays, promotes two, and takes a number on either side."""
    one, other = data.draw(pairs_of(ALL))
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=3, max_side=3, max_dims=3))
    c, x, y = (
        data.draw(arrays(d, s))
        for d, s in zip(("bool", one, other), shapes.input_shapes, strict=True)
    )
    agree("where", c, x, y)
    number = data.draw(number_beside(one))
    agree("where", c, x, number)
    agree("where", c, number, x)


def test_where_with_a_condition_alone_gives_the_places() -> None:
    """`where(condition)`, which NumPy's users and PyTorch's know, is `nonzero(condition)`."""
    found = xp.where(xp.asarray([[True, False], [False, True]]))
    assert [axis.tolist() for axis in found] == [[0, 1], [0, 1]]
    (places,) = xp.where(condition=xp.asarray([0, 3, 4]) > 1)
    assert places.tolist() == [1, 2]
    with pytest.raises(TypeError, match="misses argument 'b'"):
        xp.where(xp.asarray([True]), xp.ones(1))


@pytest.mark.parametrize("fn", [xp.add, xp.multiply, xp.maximum, operator.sub])
def test_a_number_beyond_the_integers_of_an_array_is_refused(fn: Any) -> None:
    """No number is wrapped around silently; comparisons know that it is greater than all."""
    x = xp.ones(2, dtype=xp.uint8)
    with pytest.raises(OverflowError):
        fn(x, 300)
    for args in ((x, 300), (300, x)):
        with pytest.raises(OverflowError):
            xp.where(x == 1, *args)
    assert (x < 300).tolist() == [True, True]


@pytest.mark.parametrize("foreign", [None, "a", object(), {}, len])
def test_equality_with_what_is_no_array(foreign: Any) -> None:
    """`==` leaves a foreign object to Python, whose answer is False, and True for `!=`."""
    x = xp.ones(2)
    assert (x == foreign, foreign == x) == (False, False)
    assert (x != foreign, foreign != x) == (True, True)
    assert foreign not in [x]
    assert type(x).__eq__(x, foreign) is NotImplemented


def test_a_foreign_object_may_answer_itself() -> None:
    """An object that knows tensors is asked, as Python has it."""

    class Anything:
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            return True

    assert (xp.ones(2) == Anything()) is True


@pytest.mark.parametrize("data", [[1, 2], (1, 2)])
def test_equality_with_a_sequence_is_refused(data: Any) -> None:
    """A list looks like data: that it differs as an object would be a surprise."""
    for fn in (operator.eq, operator.ne):
        with pytest.raises(TypeError, match="cannot take"):
            fn(xp.ones(2), data)
