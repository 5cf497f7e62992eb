"""Symbols, guards, run-time assertions, and binding new sizes."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyop.errors import GuardOnDataDependentError, UsageError, UsageTypeError
from polyop.symbolic import (
    ShapeEnv,
    SymBool,
    SymInt,
    check,
    hint_of,
    is_symbolic,
    statically_known_true,
    sym_max,
)


@pytest.fixture
def env() -> ShapeEnv:
    return ShapeEnv()


def texts(guards: Any) -> list[str]:
    return [g.text for g in guards]


# -- symbols -------------------------------------------------------------------


def test_zero_and_one_are_constants_and_equal_sizes_share(env: ShapeEnv) -> None:
    """S150: 0 and 1 become constants, equal sizes share a symbol."""
    assert env.create_symbol(0, "a") == 0 and type(env.create_symbol(1, "b")) is int
    x, y, z = (env.create_symbol(n, s) for n, s in ((5, "c"), (5, "d"), (6, "e")))
    assert x is y and x is not z
    assert (str(x), str(z), x.hint) == ("s0", "s1", 5)


def test_a_dynamic_size_has_its_own_symbol(env: ShapeEnv) -> None:
    """S150: a size marked dynamic shares with none, and 0 and 1 are symbols then."""
    x, y = env.create_symbol(5, "a"), env.create_symbol(5, "b", dynamic=True)
    one = env.create_symbol(1, "c", dynamic=True)
    assert x is not y and isinstance(one, SymInt)
    assert [env.range_of(s)[0] for s in (x, y, one)] == [2, 2, 1]
    low = env.create_symbol(5, "d", dynamic=True, min=0, max=9)
    assert env.range_of(low) == (0, 9)


def test_one_source_has_one_size(env: ShapeEnv) -> None:
    """A source asked for again gives the same symbol; with another size it is refused."""
    x = env.create_symbol(5, "a", dynamic=True)
    assert env.create_symbol(5, "a", dynamic=True) is x
    with pytest.raises(UsageError, match="two sizes"):
        env.create_symbol(6, "a")


@pytest.mark.parametrize("bounds", [{"min": 3}, {"max": 1}, {"min": 5, "max": 4}])
def test_a_range_that_leaves_out_the_size_is_refused(env: ShapeEnv, bounds: Any) -> None:
    """A range must hold the captured size; nothing is made otherwise."""
    with pytest.raises(UsageError, match="range"):
        env.create_symbol(2, "a", dynamic=True, **bounds)
    assert str(env.create_symbol(2, "a")) == "s0"


def test_unbacked_sizes_are_named_in_order(env: ShapeEnv) -> None:
    """S143: new dynamic sizes are u0, u1, ... with the range that was asked for."""
    u, v = env.create_unbacked(), env.create_unbacked(min=2, max=9)
    assert (str(u), str(v), u.hint, u.is_backed) == ("u0", "u1", None, False)
    assert env.range_of(u) == (0, math.inf) and env.range_of(v) == (2, 9)


@pytest.mark.parametrize("bounds", [{"min": -1}, {"min": 3, "max": 2}, {"min": 1.0}, {"max": True}])
def test_bad_ranges_of_unbacked_sizes_are_refused(env: ShapeEnv, bounds: Any) -> None:
    """S143: a negative min, max under min, or a bound that is no plain int is a UsageError."""
    with pytest.raises(UsageError):
        env.create_unbacked(**bounds)
    with pytest.raises(UsageTypeError):
        env.create_unbacked(max=env.create_symbol(4, "a"))
    assert str(env.create_unbacked()) == "u0"


# -- guards --------------------------------------------------------------------


def test_a_branch_by_hint_records_a_guard_once(env: ShapeEnv) -> None:
    """S150: comparing by hint records a guard with its place; asked again, none."""
    x, y = env.create_symbol(5, "a"), env.create_symbol(7, "b")
    assert isinstance(x < y, SymBool) and env.guards == []
    assert bool(x < y) and bool(y > x) and bool(2 * x < 2 * y) and not bool(x >= y)
    assert texts(env.guards) == ["s1 > s0"] and env.version == 1
    assert env.guards[0].place.file == __file__
    assert (x < y) is True


def test_ranges_answer_without_a_guard(env: ShapeEnv) -> None:
    """S150: what ranges decide is a plain bool."""
    x = env.create_symbol(5, "a")
    y = env.create_symbol(5, "b", dynamic=True, min=3, max=8)
    assert (x >= 2) is True and (x == 1) is False and (x != 0) is True and (x * 2 == 3) is False
    assert (y > 8) is False and (y + x > 4) is True and (x == x) is True and (x == "a") is False
    assert bool(x) and env.guards == []


def test_floats_compare_exactly(env: ShapeEnv) -> None:
    """S151: an integer against a float is compared as Python compares them."""
    x = env.create_symbol(5, "a", dynamic=True, min=3, max=8)
    assert (x > 2.5) is True and (x < 8.5) is True and (x == 4.5) is False and (x != 4.5) is True
    assert (x < math.inf) is True and (x > math.inf) is False and (x == math.inf) is False
    assert (x == math.nan) is False and (x < math.nan) is False and (x != math.nan) is True
    assert str(x >= 4.5) == "s0 >= 5" and str(x == 4.0) == "s0 == 4"
    assert bool(x / 2 < 2.75) and not bool(x * 0.5 == 2.0) and bool(x / 3 != 1.0)
    assert texts(env.guards)[0] == "s0 / 2 < 2.75"
    assert [env.guards[0].holds({"s0": n}) for n in (5, 6)] == [True, False]


def test_int_of_a_backed_size_guards(env: ShapeEnv) -> None:
    """S151: `int(s)` gives the captured size and guards that it is this one."""
    x = env.create_symbol(5, "a")
    assert int(x + 1) == 6 and float(x) == 5.0
    assert texts(env.guards) == ["s0 == 5"]
    assert int(env.create_symbol(7, "b") / 2) == 3
    assert texts(env.guards)[1:] == ["s1 / 2 == 3.5"]


def test_an_equality_guard_replaces_a_symbol(env: ShapeEnv) -> None:
    """PERFORMANCE 8: after an equality guard, results are in the symbols that are left."""
    x = env.create_symbol(5, "a", dynamic=True)
    y = env.create_symbol(5, "b", dynamic=True, min=4)
    old = x * y
    assert bool(x == y)
    assert env.simplify(y) is x and env.simplify(old) is x * x and y + 1 is x + 1
    assert (x * 2 == y + x) is True and (x >= 4) is True
    assert bool(x == 5) and type(x + y) is int and x + y == 10
    assert texts(env.guards) == ["s0 == s1", "s0 == 5"]


def test_inequality_guards_narrow_ranges(env: ShapeEnv) -> None:
    """S150: a recorded guard decides what follows from it."""
    x, y = env.create_symbol(9, "a"), env.create_symbol(4, "b")
    assert bool(x - y > 3)
    assert (x > y + 2) is True and (2 * x >= 2 * y + 6) is True and (y - x >= 0) is False
    assert bool(x != 2) and (x >= 3) is True
    assert sym_max(x, y) is x
    top = env.create_symbol(5, "c", dynamic=True, max=8)
    assert bool(top != 8) and env.range_of(top) == (2, 7)


def test_the_membership_test_guards(env: ShapeEnv) -> None:
    """PERFORMANCE 8: `s in [...]` asks each element, and so records guards."""
    x = env.create_symbol(5, "a")
    assert x in [4, 5]
    assert texts(env.guards) == ["s0 != 4", "s0 == 5"]


def test_conditions_combine_without_a_branch(env: ShapeEnv) -> None:
    """S151: `&`, `|` and `~` of conditions guard only when the result is asked."""
    x, y = env.create_symbol(5, "a"), env.create_symbol(7, "b")
    both, either, neither = (x < 6) & (y > 6), (x > 6) | (y > 6), ~(x < 6)
    assert env.guards == [] and str(neither) == "s0 >= 6"
    assert ((x < 6) & True) is (x < 6) and ((x < 6) | True) is True
    assert hint_of(both) is True and env.guards == []
    assert bool(both) and bool(either) and not bool(neither)
    assert texts(env.guards) == ["(s0 <= 5) and (s1 >= 7)"]
    assert (x < 6) + 1 == 2 and (y < 100) == True  # noqa: E712


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 9), st.integers(0, 9))
def test_a_capture_runs_again_just_where_its_guards_hold(a: int, b: int, c: int, d: int) -> None:
    """S150: at sizes that pass the guards, the program takes the same branches."""

    def program(x: Any, y: Any) -> list[bool]:
        return [bool(x == y), bool(x * 2 > y + 3), bool(x % 3 == 1), bool(y // 2 != x)]

    env = ShapeEnv()
    x, y = env.create_symbol(a, "x"), env.create_symbol(b, "y")
    captured = program(x, y)
    assert captured == program(a, b)
    if env.check_guards(env.bind({"x": c, "y": d})) is None:
        assert program(c, d) == captured


def test_binding_checks_what_the_symbols_rely_on(env: ShapeEnv) -> None:
    """S150: constants, shared symbols and ranges are guards of the inputs."""
    for size, source in ((5, "a"), (5, "b"), (1, "c")):
        env.create_symbol(size, source)
    env.create_symbol(4, "d", dynamic=True, max=8)

    def first(**sizes: int) -> str | None:
        guard = env.check_guards(env.bind({"a": 6, "b": 6, "c": 1, "d": 4} | sizes))
        return guard and guard.text

    assert first() is None
    assert first(b=7) == "b == s0" and first(c=2) == "c == 1"
    assert first(a=1, b=1) == "2 <= s0" and first(d=9) == "2 <= s1 <= 8"
    with pytest.raises(UsageError, match="no size is given for 'd'"):
        env.bind({"a": 6, "b": 6, "c": 1})


# -- unbacked ------------------------------------------------------------------


def test_a_branch_on_an_unbacked_size_raises(env: ShapeEnv) -> None:
    """S152: the error has the expression, the origin and the check to write."""
    u = env.create_unbacked(origin="demo::nonzero at demo.py:7")
    for ask in (lambda: bool(u * 2 > 8), lambda: int(u + 1), lambda: bool(u)):
        with pytest.raises(GuardOnDataDependentError) as caught:
            ask()
        assert "u0: demo::nonzero at demo.py:7" in caught.value.seen
        assert caught.value.source.startswith(__file__)
    with pytest.raises(GuardOnDataDependentError, match=r"write polyop.symbolic.check\(u0 >= 5\)"):
        bool(u * 2 > 8)
    assert env.guards == [] and hint_of(u * 2 > 8) is None


def test_an_unbacked_size_meets_a_backed_one_as_unbacked(env: ShapeEnv) -> None:
    """S152: one unbacked symbol makes the whole question depend on data."""
    x, u = env.create_symbol(5, "a"), env.create_unbacked()
    assert (x * u).hint is None
    with pytest.raises(GuardOnDataDependentError, match="u0"):
        bool(x == u)
    assert (u + x >= 2) is True and (u >= 0) is True and (u - 1 >= 0) is not True


def test_a_check_is_assumed_and_asserted_at_run_time(env: ShapeEnv) -> None:
    """S152, S153: after `check`, its consequences are free; the program asserts it."""
    u, v = env.create_unbacked(max=9), env.create_unbacked()
    check(u >= 3, "too few")
    check(v == u * 2)
    assert (u > 2) is True and (u == 0) is False and env.simplify(v) is u * 2
    assert (v >= 6) is True and (v // 2) is u
    asserts = env.runtime_asserts
    assert texts(asserts) == ["0 <= u0 <= 9", "0 <= u1", "u0 >= 3", "2*u0 == u1"]
    assert asserts[2].message == "too few" and env.guards == []
    assert [a.holds({"u0": 2, "u1": 4}) for a in asserts] == [True, True, False, True]


def test_an_unbacked_size_that_equals_a_backed_one_can_branch(env: ShapeEnv) -> None:
    """S152: a check may make a size known, and then branches on it guard as on any other."""
    x, u = env.create_symbol(5, "a"), env.create_unbacked()
    open_question = u > 4
    check(u == x)
    assert bool(open_question) and texts(env.guards) == ["s0 >= 5"]
    assert env.simplify(u + 1) is x + 1 and int(u) == 5


def test_a_false_check_raises(env: ShapeEnv) -> None:
    """S152: what is known not to hold is refused on the spot, with the message."""
    x, u = env.create_symbol(5, "a"), env.create_unbacked()
    check(u > 5)
    with pytest.raises(UsageError, match="u is small"):
        check(u < 3, lambda: "u is small")
    with pytest.raises(UsageError, match="s0 >= 6 does not hold"):
        check(x > 5)
    with pytest.raises(UsageTypeError, match="a check takes a condition"):
        check(x)
    check(x < 9)
    assert texts(env.guards) == ["s0 <= 5"]


def test_statically_known_true_never_guards(env: ShapeEnv) -> None:
    """S152: `statically_known_true` answers what is known, and False for the rest."""
    x, u = env.create_symbol(5, "a"), env.create_unbacked()
    assert statically_known_true(x >= 2) and statically_known_true(True)
    assert not statically_known_true(x == 5) and not statically_known_true(u > 4)
    held = u > 4
    check(u > 7)
    assert statically_known_true(held) and env.guards == []
    assert is_symbolic(x) and is_symbolic(held) and not is_symbolic(3)


def test_a_condition_can_be_rebuilt(env: ShapeEnv) -> None:
    """S153: an assertion can be turned into nodes of a program."""
    u = env.create_unbacked(max=9)
    check((u > 1) & (u % 2 == 0))
    built = [
        a.condition.rebuild(str, str, lambda op, *args: f"{op}({', '.join(args)})")
        for a in env.runtime_asserts
    ]
    assert built == [
        "and(ge(u0, 0), ge(9, u0))",
        "and(ge(add(u0, -2), 0), eq(mod(u0, 2), 0))",
    ]


# -- life ----------------------------------------------------------------------


def test_threads_get_one_object(env: ShapeEnv) -> None:
    """Threads that compute the same expressions get the same objects."""
    x, y = env.create_symbol(5, "a"), env.create_symbol(7, "b")
    found: list[list[Any]] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        found.append([(x * k + y) // (k + 2) for k in range(2, 300)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4
    assert all(a is b for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_memos_keep_no_environment_alive() -> None:
    """PERFORMANCE 8: a dead environment is freed."""
    env = ShapeEnv()
    x = env.create_symbol(5, "a")
    bool((x + 1) * 2.5 > 4), bool(x == 5)
    dead = weakref.ref(x)
    del env, x
    gc.collect()
    assert dead() is None
