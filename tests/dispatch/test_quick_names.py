"""Arguments given by name, which cost a call next to nothing, and mean what Python means."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import Tensor
from polyop.errors import ArgumentError, IntegerRangeError
from polyop.library import Library, custom_op

SEEN: list[Any] = []
X = polyop.from_numpy(np.arange(3.0))


@custom_op("quick_names::op", mutates_args=())
def op(
    x: Tensor, count: int, scale: float = 2.0, mode: str | None = None, *, last: int = 7
) -> Tensor:
    SEEN.append((count, scale, mode, last))
    return polyop.from_numpy(x.numpy() * scale)


NAMES = ["x", "count", "scale", "mode", "last"]


@pytest.fixture
def slow(monkeypatch: Any) -> list[Any]:
    """The calls that were bound at length."""
    op(X, 1)  # the entry is written
    seen: list[Any] = []
    first = op._opoverload.entry.__globals__["slow"]

    def bound(*given: Any) -> Any:
        seen.append(given)
        return first(*given)

    monkeypatch.setitem(op._opoverload.entry.__globals__, "slow", bound)
    return seen


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([X, 3, 0.5, "m", None]), max_size=5),
    st.dictionaries(st.sampled_from([*NAMES, "odd"]), st.sampled_from([X, 3, 0.5, "m", None])),
)
def test_calls_bind_as_python_binds(args: list[Any], kwargs: dict[str, Any]) -> None:
    """S63: names mean what Python's own binding makes of them; what that refuses is refused."""
    kernel = inspect.signature(_like)
    kinds = {"x": (Tensor,), "count": (int,), "scale": (int, float), "last": (int,)}
    kinds["mode"] = (str, type(None))
    try:
        bound = kernel.bind(*args, **kwargs)
        bound.apply_defaults()
        fits = all(isinstance(value, kinds[name]) for name, value in bound.arguments.items())
    except TypeError:
        fits = False
    SEEN.clear()
    given_as = dict(kwargs)
    if not fits:
        with pytest.raises(ArgumentError):
            op(*args, **kwargs)
        assert not SEEN
    else:
        op(*args, **kwargs)
        x, *expected = bound.arguments.values()
        assert x is X
        assert SEEN == [tuple(expected)]
        assert [type(v) for v in SEEN[0]][1] is float
    assert kwargs == given_as  # the caller's own dictionary


def _like(x: Any, count: Any, scale: Any = 2.0, mode: Any = None, *, last: Any = 7) -> None: ...


def test_names_are_quick(slow: list[Any]) -> None:
    """S63: a call by names is not bound at length, in whatever order they come."""
    SEEN.clear()
    op(X, count=1)
    op(x=X, count=2)
    op(mode="m", count=3, x=X)
    op(X, 4, scale=1, last=5)
    assert SEEN == [
        (1, 2.0, None, 7), (2, 2.0, None, 7), (3, 2.0, "m", 7), (4, 1.0, None, 5),
    ]  # fmt: skip
    assert not slow


WRONG: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((X, 1), {"count": 2}, "got argument 'count' twice"),
    ((X, 1, 0.5), {"scale": 2.0}, "got argument 'scale' twice"),
    ((X, 1, 2.0), {"scale": 3.0}, "got argument 'scale' twice"),  # the default itself
    ((X, 1, 2.0, None), {"mode": None}, "got argument 'mode' twice"),
    ((X,), {"count": 1, "skale": 2.0}, "has no argument 'skale'.*did you mean 'scale'"),
    ((X,), {"scale": 2.0}, "misses argument 'count'"),
    ((), {"count": 1}, "misses argument 'x'"),
    ((X, 1, 2.0, None, 8), {}, "too many arguments"),
    ((X, 1, 2.0, None, 8), {"odd": 1}, "too many arguments"),
    ((X,), {"count": "a"}, "count"),
    ((X,), {"count": True, "mode": 3}, "mode|count"),
]


@pytest.mark.parametrize(("args", "kwargs", "words"), WRONG)
def test_mistakes_keep_their_words(args: Any, kwargs: Any, words: str) -> None:
    """S63: a mistake beside names that are right says what it is."""
    SEEN.clear()
    with pytest.raises(ArgumentError, match=words):
        op(*args, **kwargs)
    assert not SEEN


def test_arguments_of_odd_names() -> None:
    """S63: names that generated functions use themselves are names like others."""
    lib = Library("quick_odd_names", "DEF")
    names = ["_named", "_rest", "op", "slow", "defaults", "a1", "a0", "word", "memo"]
    lib.define(f"f(Tensor x, {', '.join(f'int {n}=0' for n in names)}) -> int[]")
    lib.impl("f", lambda x, *given: list(given), "CPU")
    f = polyop.ops.quick_odd_names.f
    for i, name in enumerate(names):
        expected = [0] * len(names)
        expected[i] = i + 1
        assert f(X, **{name: i + 1}) == expected
    assert f(X, **{n: i for i, n in enumerate(names)}) == list(range(len(names)))


def test_numbers_for_floats() -> None:
    """S63: whole numbers for floats become floats, however large; flags are none."""
    SEEN.clear()
    for number in (1, -(2**29), 2**30 - 1, 2**40, 2**70, np.int64(3), np.float32(0.5)):
        op(X, 1, number)
        assert (SEEN[-1][1], type(SEEN[-1][1])) == (float(number), float)


@pytest.mark.parametrize("by_name", [True, False])
def test_arrays_of_numpy_by_name(by_name: bool) -> None:
    """S63: an array of NumPy that is given by name is taken as one given by its place."""
    array = np.arange(3.0)
    found = op(x=array, count=1) if by_name else op(array, 1)
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, array * 2)


def test_integers_for_lists_of_one() -> None:
    """S63: one integer fills a list of one only if it has 64 bits, by place and by name."""
    lib = Library("quick_filled", "DEF")
    lib.define("f(Tensor x, int[1] n=0) -> int[]")
    lib.impl("f", lambda x, n: n, "CPU")
    f = polyop.ops.quick_filled.f
    for number in (5, -(2**29), 2**31, 2**63 - 1, -(2**63)):
        assert f(X, number) == f(X, n=number) == [number]
    for number in (2**63, 2**64, -(2**63) - 1):
        with pytest.raises(IntegerRangeError):
            f(X, number)
        with pytest.raises(IntegerRangeError):
            f(X, n=number)
