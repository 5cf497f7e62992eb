"""Results that a few looks let pass, and the ways to share memory that they must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import Tensor
from polyop.dispatch import results
from polyop.errors import AliasError, ReturnError
from polyop.library import Library

Array = np.ndarray[Any, Any]
ANSWER: list[Callable[..., Any]] = []


LIB = Library("quick_results", "DEF")
for name in (
    "one(Tensor x) -> Tensor", "two(Tensor x, Tensor? y) -> (Tensor, Tensor)",
    "many(Tensor[] xs) -> Tensor", "whole(Tensor x) -> int", "real(Tensor x) -> float",
    "flag(Tensor x) -> bool",
):  # fmt: skip
    LIB.define(name)
    LIB.impl(name.split("(")[0], lambda *args: ANSWER[-1](*args), "CPU")


@pytest.fixture
def ops() -> Any:
    """Operators that answer with what the last of `ANSWER` makes of their arguments."""
    return polyop.ops.quick_results


@pytest.fixture
def looked(monkeypatch: Any) -> list[str]:
    """Which results were looked at closely."""
    seen: list[str] = []
    first = results._check_aliases

    def check(op: Any, *given: Any) -> None:
        seen.append(op._opname)
        first(op, *given)

    monkeypatch.setattr(results, "_check_aliases", check)
    return seen


def answer(fn: Callable[..., Any]) -> None:
    ANSWER[:] = [fn]


def tensor(array: Any) -> Tensor:
    return polyop.from_numpy(array)


BASE = np.arange(24.0).reshape(4, 6)
#: Arguments that are arrays of their own, views, and views of views.
ARGUMENTS: dict[str, Callable[[], Array]] = {
    "own": lambda: np.arange(6.0),
    "row": lambda: BASE[1],
    "turned": lambda: BASE.T[1],
    "of a view": lambda: BASE[1:][0][::2],
    "detached": lambda: polyop.ones(6, requires_grad=True).detach().numpy(),
}
#: What kernels make of them that is memory of its own.
FRESH: dict[str, Callable[[Array], Array]] = {
    "new": lambda x: np.sin(x),
    "view of new": lambda x: np.sin(x)[::-1],
    "reshaped": lambda x: np.sin(x).reshape(1, -1)[0],
    "of one element": lambda x: np.asarray(np.sum(x)),
}


@pytest.mark.parametrize("given", ARGUMENTS)
@pytest.mark.parametrize("made", FRESH)
def test_views_are_quick(given: str, made: str, ops: Any, looked: list[str]) -> None:
    """S48: views as arguments and as results need no close look where their memory differs."""
    x = ARGUMENTS[given]()
    fresh = FRESH[made]
    answer(lambda t: tensor(fresh(t.numpy())))
    np.testing.assert_array_equal(ops.one(tensor(x)).numpy(), fresh(x))
    answer(lambda ts: tensor(fresh(ts[1].numpy())))
    np.testing.assert_array_equal(ops.many([tensor(x), tensor(x)]).numpy(), fresh(x))
    answer(lambda t, other: (tensor(fresh(t.numpy())), tensor(fresh(t.numpy()))))
    for other in (None, tensor(x)):
        for one in ops.two(tensor(x), other):
            np.testing.assert_array_equal(one.numpy(), fresh(x))
    assert not looked


class Odd(np.ndarray[Any, Any]):
    """An array of another class."""


#: Ways to give an argument's memory back; `b` is what the argument is a view of.
SHARED: dict[str, Callable[[Array, Array], Array]] = {
    "itself": lambda x, b: x,
    "its base": lambda x, b: b,
    "another view of it": lambda x, b: b[1:, ::2],
    "a view of the view": lambda x, b: x[::2],
    "through a buffer": lambda x, b: np.frombuffer(memoryview(b)),
    "through another class": lambda x, b: np.asarray(b.view(Odd)[1]),
    "through an interface": lambda x, b: np.asarray(Held(b)),
    "through strides": lambda x, b: np.lib.stride_tricks.as_strided(b[1:], (2,), (8,)),
    "through bytes that it lies in": lambda x, b: b.view("u1").view("f8"),
}


class Held:
    """Gives an array by its interface, so that NumPy makes one with another base."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__


@pytest.mark.parametrize("way", SHARED)
def test_what_shares_is_refused(way: str, ops: Any) -> None:
    """S48: no way to a view's memory is quick, of an argument or of another result."""
    base = np.arange(24.0).reshape(4, 6)
    x = base[1]
    shared = SHARED[way]
    cases: list[tuple[Callable[..., Any], Callable[[], Any]]] = [
        (lambda t: tensor(shared(x, base)), lambda: ops.one(tensor(x))),
        (lambda ts: tensor(shared(x, base)), lambda: ops.many([tensor(np.ones(2)), tensor(x)])),
        (
            lambda t, u: (tensor(np.ones(1)), tensor(shared(x, base))),
            lambda: ops.two(tensor(np.ones(2)), tensor(x)),
        ),
    ]
    for kernel, call in cases:
        answer(kernel)
        with pytest.raises(AliasError, match="shares storage with argument"):
            call()


@pytest.mark.parametrize("way", SHARED)
def test_results_that_share_with_each_other(way: str, ops: Any) -> None:
    """S48: two results of one memory are refused."""

    def kernel(t: Tensor, other: Any) -> Any:
        base = np.arange(24.0).reshape(4, 6)
        x = base[1]
        return tensor(x), tensor(SHARED[way](x, base))

    answer(kernel)
    with pytest.raises(AliasError, match="result 1 of .* shares storage with result 0"):
        ops.two(tensor(np.ones(2)), None)


def test_parts_of_one_array(ops: Any, looked: list[str]) -> None:
    """S48: parts of one array that have no element in common share nothing, at a closer look."""
    base = np.arange(8.0)
    answer(lambda t: tensor(base[4:]))
    ops.one(tensor(base[:4]))
    answer(lambda t, other: (tensor(base[:2]), tensor(base[6:])))
    ops.two(tensor(base[2:4]), tensor(base[4:6]))
    assert looked == ["one", "two"]


@pytest.mark.parametrize("given", [None, (), (1, 2), "list", "three", "one"])
def test_other_numbers_of_results(given: Any, ops: Any) -> None:
    """S47: two results are a tuple of two, or a list of two."""
    fresh = [tensor(np.ones(1)) for _ in range(3)]
    made = {"list": fresh[:2], "three": tuple(fresh), "one": fresh[0]}
    answer(lambda t, other: made[given] if isinstance(given, str) else given)
    if given == "list":
        found = ops.two(fresh[2], None)
        assert [id(t) for t in found] == [id(t) for t in fresh[:2]]
    else:
        with pytest.raises(ReturnError):
            ops.two(tensor(np.ones(1)), None)


NUMBERS: list[tuple[str, Any, Any]] = [
    ("whole", 3, 3), ("whole", -(2**63), -(2**63)), ("whole", 2**63, None), ("whole", True, None),
    ("whole", 1.0, None), ("real", 0.5, 0.5), ("real", 2, 2.0), ("real", True, None),
    ("real", None, None), ("flag", True, True), ("flag", 1, None), ("flag", np.bool_(True), True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "expected"), NUMBERS)
def test_numbers(name: str, given: Any, expected: Any, ops: Any) -> None:
    """S47: numbers of the schema's type pass by one look, others are converted or refused."""
    answer(lambda t: given)
    if expected is None:
        with pytest.raises(ReturnError):
            getattr(ops, name)(tensor(np.ones(1)))
    else:
        found = getattr(ops, name)(tensor(np.ones(1)))
        assert (found, type(found)) == (expected, type(expected))


@st.composite
def slices(draw: Any) -> slice:
    """Give a slice of twelve."""
    ends = draw(st.tuples(st.integers(0, 12), st.integers(0, 12)))
    return slice(min(ends), max(ends), draw(st.sampled_from([1, 2, 3])))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), slices()), min_size=4, max_size=4))
def test_random_views(parts: Any) -> None:
    """S48: of random views of two arrays those are refused that have an element in common."""
    memory = [np.arange(12.0), np.arange(12.0)]
    arrays = [memory[which][part] for which, part in parts]
    x, y, first, second = map(tensor, arrays)
    answer(lambda *given: (first, second))
    places = [{(which, i) for i in range(12)[part]} for which, part in parts]
    meets = any(places[a] & places[b] for a, b in ((0, 2), (0, 3), (1, 2), (1, 3), (2, 3)))
    if meets:
        with pytest.raises(AliasError):
            polyop.ops.quick_results.two(x, y)
    else:
        found = polyop.ops.quick_results.two(x, y)
        assert found[0] is first and found[1] is second


def test_gradients_of_views(looked: list[str]) -> None:
    """S48: calls that are recorded are as quick, on views and with views as results."""

    def half(x: Tensor) -> Tensor:
        return tensor(np.repeat(x.numpy(), 2)[::2] / 2)

    op = polyop.custom_op("quick_results::half", half, mutates_args=())
    op.register_autograd(lambda ctx, g: g / 2)
    x = polyop.ones((3, 4), requires_grad=True)
    op(x[1]).sum().backward()
    expected = np.zeros((3, 4))
    expected[1] = 0.5
    np.testing.assert_array_equal(x.grad.numpy(), expected)
    assert not looked
