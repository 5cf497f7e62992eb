"""Symbolic arithmetic agrees with Python's ints, whatever was simplified."""

from __future__ import annotations

import copy
import math
import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from polyop.errors import UsageError
from polyop.symbolic import ShapeEnv, SymFloat, SymInt, hint_of, sym_max, sym_min

NAMES = ("a", "b", "c")
BINARY = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "max": sym_max,
    "min": sym_min,
}


def trees() -> st.SearchStrategy[Any]:
    leaves = st.one_of(st.sampled_from(NAMES), st.integers(-6, 6))
    return st.recursive(
        leaves, lambda sub: st.tuples(st.sampled_from(sorted(BINARY)), sub, sub), max_leaves=9
    )


def compute(tree: Any, leaves: dict[str, Any]) -> Any:
    if isinstance(tree, str):
        return leaves[tree]
    if isinstance(tree, int):
        return tree
    op, x, y = tree
    return BINARY[op](compute(x, leaves), compute(y, leaves))


@st.composite
def worlds(draw: Any) -> tuple[list[tuple[int, int | None]], list[int], list[int]]:
    """Ranges of three symbols, and two values of each inside its range."""
    ranges, first, second = [], [], []
    for _ in NAMES:
        lo = draw(st.integers(-8, 8))
        hi = draw(st.one_of(st.none(), st.integers(lo, lo + 12)))
        inside = st.integers(lo, lo + 40 if hi is None else hi)
        ranges.append((lo, hi))
        first.append(draw(inside))
        second.append(draw(inside))
    return ranges, first, second


def make(ranges: Any, hints: Any) -> tuple[ShapeEnv, dict[str, Any]]:
    env = ShapeEnv()
    made = [
        env.create_symbol(h, n, dynamic=True, min=lo, max=hi)
        for n, h, (lo, hi) in zip(NAMES, hints, ranges, strict=True)
    ]
    return env, dict(zip(NAMES, made, strict=True))


@settings(max_examples=600, deadline=None)
@given(trees(), worlds())
def test_an_expression_has_the_value_and_bounds_of_pythons(tree: Any, world: Any) -> None:
    """S151: an expression evaluates as Python computes it, inside its bounds, at every size.

    Where Python divides by zero a guard fails, whatever the expression was simplified to.
    """
    ranges, hints, others = world
    env, leaves = make(ranges, hints)
    try:
        symbolic = compute(tree, leaves)
        expected = compute(tree, dict(zip(NAMES, hints, strict=True)))
    except ZeroDivisionError:
        assume(False)
    assert hint_of(symbolic) == expected
    assert all(guard.condition.op == "ne" for guard in env.guards)  # of divisors alone
    lo, hi = env.range_of(symbolic)
    for values in (hints, others):
        plain = dict(zip(NAMES, values, strict=True))
        try:
            python = compute(tree, plain)
        except ZeroDivisionError:
            assert env.check_guards(env.bind(plain)) is not None
            continue
        assert env.evaluate(symbolic, env.bind(plain)) == python
        assert lo <= python <= hi


@settings(max_examples=400, deadline=None)
@given(trees(), trees(), st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]), worlds())
def test_a_decided_comparison_is_right_at_every_size(x: Any, y: Any, op: str, world: Any) -> None:
    """S150: what ranges decide, or a guard records, is true at each size that passes the guards."""
    ranges, hints, others = world
    env, leaves = make(ranges, hints)
    ask = getattr(operator, op)
    try:
        answer = bool(ask(compute(x, leaves), compute(y, leaves)))
    except ZeroDivisionError:
        assume(False)
    plain = dict(zip(NAMES, hints, strict=True))
    assert answer == ask(compute(x, plain), compute(y, plain))
    again = dict(zip(NAMES, others, strict=True))
    try:
        same = ask(compute(x, again), compute(y, again)) == answer
    except ZeroDivisionError:
        return
    if env.check_guards(env.bind(again)) is None:
        assert same
    elif not env.guards[-1].holds(env.bind(again)):
        assert not same


@settings(max_examples=300, deadline=None)
@given(trees(), st.lists(st.tuples(trees(), trees()), max_size=3), worlds())
def test_guards_leave_an_expression_its_value(tree: Any, asked: Any, world: Any) -> None:
    """S150: after guards, replacements included, expressions keep value and bounds."""
    ranges, hints, _ = world
    env, leaves = make(ranges, hints)
    plain = dict(zip(NAMES, hints, strict=True))
    try:
        before = compute(tree, leaves)
        for x, y in asked:
            bool(compute(x, leaves) == compute(y, leaves))
            bool(compute(x, leaves) <= compute(y, leaves))
        after = env.simplify(before)
        new = compute(tree, leaves)
    except ZeroDivisionError:
        assume(False)
    expected = compute(tree, plain)
    for form in (before, after, new):
        assert env.evaluate(form, plain | {f"s{i}": v for i, v in enumerate(hints)}) == expected
        lo, hi = env.range_of(form)
        assert lo <= expected <= hi
    assert env.check_guards(env.bind(plain)) is None


@settings(max_examples=200, deadline=None)
@given(trees(), worlds())
def test_rebuild_walks_the_whole_expression(tree: Any, world: Any) -> None:
    """A size can be rebuilt from outside, from the eight named operations only."""
    ranges, hints, _ = world
    env, leaves = make(ranges, hints)
    try:
        symbolic = compute(tree, leaves)
    except ZeroDivisionError:
        assume(False)
    assume(isinstance(symbolic, SymInt))
    words = {"add": "+", "mul": "*", "floordiv": "//", "mod": "%"}
    text = symbolic.expr.rebuild(
        lambda name: name,
        lambda value: f"({value})",
        lambda op, x, y: f"({x}{words[op]}{y})" if op in words else f"{op}({x},{y})",
    )
    scope = {f"s{i}": v for i, v in enumerate(hints)}
    assert eval(text, {}, scope) == symbolic.hint == eval(str(symbolic), {}, scope)
    assert set(symbolic.expr.symbols()) <= set(scope)


@pytest.fixture
def env() -> ShapeEnv:
    return ShapeEnv()


@pytest.fixture
def sizes(env: ShapeEnv) -> Any:
    return env.create_symbol(12, "x.shape[0]"), env.create_symbol(7, "x.shape[1]")


def test_equal_expressions_are_one_object(sizes: Any) -> None:
    """S151: equal expressions are identical, and compare equal as a plain True."""
    a, b = sizes
    assert a * 3 + a is a * 4
    assert (a + b) * (a - b) is a * a - b * b
    assert (a * 3 + a == 4 * a) is True
    assert sym_max(a, b) is sym_max(b, a)


def test_exact_divisions_cancel(sizes: Any) -> None:
    """S151: what divides exactly is divided, with positive symbolic divisors too."""
    a, b = sizes
    assert (a * 4) // 4 is a
    assert (a * b) // a is b
    assert (a * b * 64) // (a * 32) is b * 2
    assert ((a + 1) * b * 3) // (a + 1) is b * 3
    assert (a * b) % a == 0
    assert (a * 6 + 5) // 3 is a * 2 + 1
    assert (a * 6 + 5) % 3 == 2


def test_a_divisor_that_may_be_zero_does_not_cancel(env: ShapeEnv) -> None:
    """S151: `n * s // s` keeps its division where `s` may be zero, as Python would raise."""
    s = env.create_symbol(4, "n", dynamic=True, min=0)
    assert isinstance((s * 3) // s, SymInt)
    with pytest.raises(ZeroDivisionError):
        env.evaluate((s * 3) // s, {"s0": 0})
    with pytest.raises(ZeroDivisionError):
        s // 0


@pytest.mark.parametrize("of", [lambda n, m: (n + m) % (n % 2) % 3, lambda n, m: n // (n % 2) * 0])
def test_a_divisor_that_the_result_loses_is_guarded(env: ShapeEnv, of: Any) -> None:
    """S151: what is simplified to a number is one only where Python divides by no zero."""
    assert of(env.create_symbol(5, "n"), env.create_symbol(4, "m")) == 0
    assert env.check_guards(env.bind({"n": 7, "m": 3})) is None
    guard = env.check_guards(env.bind({"n": 6, "m": 3}))
    assert guard is not None and "% 2) != 0" in guard.text


def test_an_unbacked_divisor_is_asserted(env: ShapeEnv) -> None:
    """S153: a divisor that depends on data is checked when the program runs."""
    n = env.create_unbacked()
    assert (7 // n) * 0 == 0
    assert [guard.text for guard in env.checks] == ["u0 != 0"]


def test_constant_results_are_plain_ints(sizes: Any) -> None:
    """S151: a result without symbols is a Python int."""
    a, _ = sizes
    for result in (a - a, a * 0, (a * 2) // a, a % 1, sym_min(a, 0), a**0):
        assert type(result) is int


def test_memos_keep_the_classes_of_numbers_apart(sizes: Any) -> None:
    """S149, S151: 2, 2.0 and True are equal keys, and have different results."""
    a, _ = sizes
    assert isinstance(a * 2, SymInt)
    assert isinstance(a * 2.0, SymFloat)
    assert a * True is a
    assert isinstance(a * 1.0, SymFloat)
    assert (a + 1) is (a + True)
    assert isinstance(a + 1.0, SymFloat)
    assert (a * 2.0).hint == 24.0 and type((a * 2.0).hint) is float
    assert a * np.int64(2) is a * 2 is np.int64(2) * a


def test_texts_are_python(sizes: Any) -> None:
    """Expressions print as Python writes them, higher degrees first."""
    a, b = sizes
    assert str(a) == "s0"
    assert str(a * 2 + 1) == "2*s0 + 1"
    assert str(a * b - a - 3) == "s0*s1 - s0 - 3"
    assert str((a + 1) // 2) == "((s0 + 1) // 2)"
    assert str(sym_max(a, b)) == "max(s0, s1)"
    assert str(a % 4) == "(s0 % 4)"
    assert str(2**a) == "(2 ** s0)"
    assert str(a / 2) == "s0 / 2"
    assert str((a + 1) / b * 0.5) == "((s0 + 1) / s1) * 0.5"


def test_python_operators_on_both_sides(env: ShapeEnv, sizes: Any) -> None:
    """S151: every operator works from the left and from the right, as on the hints."""
    a, _ = sizes
    pairs = [
        (lambda s: 20 - s),
        (lambda s: 20 // s),
        (lambda s: 20 % s),
        (lambda s: 3**s),
        (lambda s: s**3),
        (lambda s: s**9),
        (lambda s: s**-1),
        (lambda s: 1 / s),
        (lambda s: s / 5),
        (lambda s: divmod(s, 5)[1]),
        (lambda s: divmod(50, s)[0]),
        (lambda s: abs(-s)),
        (lambda s: abs(s - 40)),
        (lambda s: +s),
        (lambda s: s // -5),
        (lambda s: s % -5),
        (lambda s: round(s)),
        (lambda s: math.floor(s / 5)),
        (lambda s: math.ceil(s / 5)),
        (lambda s: 2.5 - s),
        (lambda s: s - 2.5),
        (lambda s: -(s * 0.5)),
        (lambda s: s * 0.5 // 2),
        (lambda s: s * 0.5 % 4),
        (lambda s: (s * 0.5) ** 2),
        (lambda s: 2.0 ** (s / 3)),
        (lambda s: abs(s * -0.5)),
    ]
    for fn in pairs:
        assert hint_of(fn(a)) == fn(12)
        assert env.evaluate(fn(a), {"s0": 33}) == fn(33)
    assert env.guards == []


def test_rounding_a_quotient_stays_an_integer_expression(sizes: Any) -> None:
    """S151: `math.ceil(h / 2)` of a size is a size."""
    a, _ = sizes
    assert math.floor(a / 2) is a // 2
    assert math.ceil(a / 2) is -(-a // 2)
    assert math.ceil(a / 2) >= 1  # by its range


def test_a_ceiling_division_keeps_its_range(env: ShapeEnv, sizes: Any) -> None:
    """PERFORMANCE 8: bounds follow the operands of `//`, negative ones too."""
    a, _ = sizes
    assert env.range_of(-(-a // 2))[0] == 1
    assert env.range_of((a - 20) // 3)[0] == -6
    assert (((a - 20) // 3) >= 0) is not True


def test_a_size_is_no_index(sizes: Any) -> None:
    """PERFORMANCE 8: nothing turns a size into an int in silence."""
    a, _ = sizes
    with pytest.raises(TypeError):
        operator.index(a)
    with pytest.raises(TypeError):
        a * np.ones(3)
    with pytest.raises(TypeError):
        a + "1"


def test_two_environments_do_not_mix(sizes: Any) -> None:
    """Sizes of two captures in one expression are refused, with both named."""
    other = ShapeEnv().create_symbol(3, "y")
    with pytest.raises(UsageError, match="two environments"):
        sizes[0] + other


def test_a_copy_of_a_size_is_the_size(sizes: Any) -> None:
    """A deep copy of a program keeps the identity of its sizes."""
    a, _ = sizes
    pair = copy.deepcopy([a, a / 2, a < 20])
    assert pair[0] is a and pair[1] is a / 2 and copy.copy(a) is a


def test_long_chains_need_no_recursion(env: ShapeEnv, sizes: Any) -> None:
    """An expression thousands of operations deep is evaluated, printed and guarded."""
    a, _ = sizes
    x = a
    for k in range(3000):
        x = (x + k) // 2
    expected = 12
    for k in range(3000):
        expected = (expected + k) // 2
    assert x.hint == expected == env.evaluate(x, {"s0": 12})
    assert bool(x == expected)
    assert env.guards[0].holds({"s0": 12})


def test_huge_numbers_stay_exact(env: ShapeEnv, sizes: Any) -> None:
    """Bounds give up on huge numbers; values never do."""
    a, _ = sizes
    big = a * 10**400 + 10**400
    assert big.hint == 13 * 10**400
    assert bool(big > a) and env.evaluate(big // 10**400, {"s0": 5}) == 6
