"""What a choice leaves out is heard of as in the eager call (S211): a compiler must not skip it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import Tensor, where
from polyop.compile.fused.choices import folds_loudly, unheard
from polyop.compile.fused.formula import Formula
from polyop.compile.fused.symbols import Symbol, trace

LIBRARY = importlib.import_module("polyop.compile.fused.library")
pytestmark = pytest.mark.skipif(LIBRARY.compiler() is None, reason="there is no C compiler")

Program = Callable[[Any, Any, Any], Any]
TINY = {"f4": 1e-30, "f8": 1e-200}
HUGE = {"f4": 3e38, "f8": 1e308}
#: What it computes, the two inputs, and what NumPy says of it though nothing of it is chosen.
LOUD: dict[str, tuple[Program, Any, Any, str]] = {
    "divide": (lambda c, x, y: where(c, x / y, x), 1.0, 0.0, "divide"),
    "invalid": (lambda c, x, y: where(c, y / y, x), 1.0, 0.0, "invalid"),
    "overflow": (lambda c, x, y: where(c, x * x, y) + 1, HUGE, 0.0, "overflow"),
    "underflow": (lambda c, x, y: where(c, x * x, y) + 1, TINY, 0.0, "underflow"),
    "guarded": (lambda c, x, y: where(y != 0, x / y, x), 1.0, 0.0, "divide"),
    "sqrt": (lambda c, x, y: where(x > 0, x.sqrt(), y) + 1, -1.0, 1.0, "invalid"),
    "log": (lambda c, x, y: where(c, x.log(), y) + 1, -1.0, 1.0, "invalid"),
    "exp": (lambda c, x, y: where(c, x.exp(), y) + 1, 1e4, 1.0, "overflow"),
    "inside": (lambda c, x, y: where(c, (x * x + y) * 2, y) + 1, TINY, 1.0, "underflow"),
    "behind a quiet step": (lambda c, x, y: where(c, -(x * x), y) + 1, TINY, 1.0, "underflow"),
    "choice in choice": (lambda c, x, y: where(c, where(c, x * x, y) + y, y), TINY, 1.0,
                         "underflow"),
    "condition": (lambda c, x, y: where((x * x > 0) & c, x, y) + 1, TINY, 1.0, "underflow"),
    "result of truth": (lambda c, x, y: (x * x >= 0) & c, TINY, 1.0, "underflow"),
    "wider": (lambda c, x, y: where(c, x * x, y).astype(polyop.float64) + 1, TINY, 1.0,
              "underflow"),
    "narrower": (lambda c, x, y: where(c, (x.astype(polyop.float64) * 1e300)
                                       .astype(polyop.float32), y), 1.0, 1.0, "overflow"),
    "second of a maximum": (lambda c, x, y: polyop.maximum(x, y * y) + 1, np.nan, TINY,
                            "underflow"),
    "sign of a square": (lambda c, x, y: polyop.copysign(x, y * y) + 1, 1.0, TINY, "underflow"),
}  # fmt: skip


def loops(fn: Callable[..., Any]) -> Any:
    return polyop.compile(fn, backend="c", fullgraph=True)


def heard(fn: Any, *values: Tensor) -> tuple[Any, list[str]]:
    """Give a result, and what is said of it where everything is said."""
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="warn"):
        warnings.simplefilter("always")
        found = fn(*values)
    return found, [str(w.message) for w in caught]


def inputs(name: str, dtype: str, n: int) -> list[Tensor]:
    values = [v[dtype] if isinstance(v, dict) else v for v in LOUD[name][1:3]]
    arrays = [np.zeros(n, bool), *[np.full(n, v, dtype) for v in values]]
    return [polyop.from_numpy(a) for a in arrays]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", LOUD)
def test_what_is_chosen_nowhere_is_heard(name: str, dtype: str) -> None:
    """S211: each floating-point flag of a branch that no element takes is the eager call's."""
    fn, *_, word = LOUD[name]
    compiled = loops(fn)
    for n in (1, 5, 64, 1000):
        values = inputs(name, dtype, n)
        found, said = heard(compiled, *values)
        expected, wanted = heard(fn, *values)
        assert said == wanted and any(word in text for text in said)
        assert np.array_equal(found.numpy(), expected.numpy(), equal_nan=True)
    kind = {"invalid": "invalid", "divide": "divide", "overflow": "over", "underflow": "under"}
    with np.errstate(all="ignore", **{kind[word]: "raise"}):  # type: ignore[arg-type]
        with pytest.raises(FloatingPointError, match=word):
            compiled(*values)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(compiled(*values).numpy(), expected.numpy(), equal_nan=True)


CONSTANT: list[Program] = [
    lambda c, x, y: 1 / polyop.sign(x),
    lambda c, x, y: 1 / polyop.relu(x),
    lambda c, x, y: 1 / where(c, 0, x),
    lambda c, x, y: 1 / (where(c, x, 0) * 2),
    lambda c, x, y: 1 / polyop.maximum(x, 0.0),
    lambda c, x, y: polyop.log(polyop.sign(x)),
    lambda c, x, y: polyop.square(polyop.copysign(1e-30, x)),
    lambda c, x, y: where(c, 1e-30, x) * where(c, 1e-30, y),
    lambda c, x, y: where(c, 3e38, x) * where(c, 3e38, y),
    lambda c, x, y: 1 / where(c, 0, 1).astype(polyop.float32),
    lambda c, x, y: 1 / (x > 0).astype(polyop.float32),
    lambda c, x, y: where(c, np.inf, x) - where(c, np.inf, y),
]


@pytest.mark.parametrize("i", range(len(CONSTANT)))
def test_constants_that_are_chosen_are_heard(i: int) -> None:
    """S211: what a compiler could compute beforehand raises the flags of the eager call too."""
    fn = CONSTANT[i]
    compiled, said = loops(fn), []
    for n, chosen, value in product((1, 5, 33, 1000), (False, True), (0.0, -1.0, 1.0)):
        arrays = np.full(n, chosen), np.full(n, value, "f4"), np.full(n, 1, "f4")
        values = [polyop.from_numpy(a) for a in arrays]
        said += heard(compiled, *values)[1]
        assert heard(compiled, *values)[1] == heard(fn, *values)[1]
    assert said


def test_choices_among_few_elements_are_heard() -> None:
    """S211: one element of many, at any place, that is not chosen and divides by zero."""
    fn: Program = lambda c, x, y: where(c, x / y, x) * 2  # noqa: E731
    compiled = loops(fn)
    for place in (0, 7, 63, 64, 99):
        chosen, divisor = np.ones(100, bool), np.ones(100, "f4")
        chosen[place], divisor[place] = False, 0
        values = [polyop.from_numpy(a) for a in (chosen, np.ones(100, "f4"), divisor)]
        assert heard(compiled, *values)[1] == heard(fn, *values)[1] != []


def test_strided_and_long_arrays_are_heard() -> None:
    """S211: the same on strides, and where threads share the work."""
    fn, x, y, _ = LOUD["divide"]
    compiled = loops(fn)
    for n, step in ((999, 3), (1 << 20, 1)):
        values = [polyop.from_numpy(np.full(n, v, d)[::step]) for v, d in
                  ((False, "?"), (x, "f4"), (y, "f4"))]  # fmt: skip
        assert len(heard(compiled, *values)[1]) == 1


VALUES = [0.0, -0.0, 1.0, -2.0, 0.5, np.inf, np.nan, 3e38, 1e-30, 1e-38, 1e-45, -7.25]
UNARY = ["relu", "sqrt", "square", "reciprocal", "negative", "abs", "sign"]
BINARY = ["add", "subtract", "multiply", "divide", "maximum", "minimum", "copysign"]
COMPARE = ["less", "equal", "greater_equal"]


@st.composite
def programs(draw: Any) -> list[tuple[str, int, int, int]]:
    names = st.sampled_from([
        *UNARY, *BINARY, *BINARY, *COMPARE, "and", *["where"] * 6, "or 0", "or 1e-30",
    ])  # fmt: skip
    places = st.integers(0, 9)
    found: list[tuple[str, int, int, int]] = draw(
        st.lists(st.tuples(names, places, places, places), min_size=2, max_size=9)
    )
    return found


def running(program: list[tuple[str, int, int, int]]) -> Program:
    def run(c: Any, x: Any, y: Any) -> Any:
        values, truths = [x, y], [c]
        for name, i, j, k in program:
            a, b, t = values[-1 - i % len(values)], values[j % len(values)], truths[k % len(truths)]
            if name == "where":
                values.append(where(t, a, b))
            elif name.startswith("or "):
                values.append(where(t, a, float(name[3:])))
            elif name == "and":
                truths.append(truths[-1] & t)
            elif name in COMPARE:
                truths.append(getattr(polyop, name)(a, b))
            else:
                values.append(getattr(polyop, name)(*((a,) if name in UNARY else (a, b))))
        return where(truths[-1], values[-1], x)

    return run


@settings(max_examples=60, deadline=None)
@given(programs(), st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 40]))
def test_programs_of_choices_are_heard(program: Any, seed: int, n: int) -> None:
    """S211: whatever is chosen of what, the kinds of warnings are those of the eager calls."""
    rng = np.random.default_rng(seed)
    fn = running(program)
    chosen = [np.zeros(n, bool), np.ones(n, bool), rng.random(n) > 0.5][seed % 3]
    values = [chosen, *[rng.choice(np.array(VALUES, "f4"), n) for _ in range(2)]]
    given_ = [polyop.from_numpy(v) for v in values]
    found, said = heard(loops(fn), *given_)
    expected, wanted = heard(fn, *given_)
    assert sorted(set(said)) == sorted(set(wanted))
    assert np.array_equal(found.numpy(), expected.numpy(), equal_nan=True)


def formula(fn: Program, dtype: str = "f4") -> Formula:
    steps: list[Any] = []
    symbols = [Symbol(np.dtype(d), steps) for d in ("?", dtype, dtype)]
    result = trace(fn, tuple(symbols), {})
    assert result is not None
    return Formula(dict(enumerate(symbols)), steps, result)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fn", "count"),
    [
        (lambda c, x, y: np.where(c, x, y) * 2, 0),
        (lambda c, x, y: (x * y + x) * y, 0),
        (lambda c, x, y: np.maximum(x * y, 0), 0),
        (lambda c, x, y: np.where(c, -x, np.abs(y)), 0),
        (lambda c, x, y: np.where(c, (x * y + x) * y, y), 1),
        (lambda c, x, y: np.where(c, x * y, x / y), 2),
        (lambda c, x, y: np.where(x * y > 0, x, y), 1),
        (lambda c, x, y: np.where(c, x * y, y) + x * y, 1),
    ],
)
def test_only_what_could_be_left_out_is_kept(fn: Program, count: int) -> None:
    """What a result has the bits of needs no keeping, nor what raises no flags."""
    made = formula(fn)
    assert len(unheard({"r": made}, ["r"])) == count


@pytest.mark.parametrize(
    ("fn", "loudly"),
    [
        (lambda c, x, y: np.maximum(np.minimum(x * y, 1), -1) * x, False),
        (lambda c, x, y: np.where(c, 0, x) * 2 + 1, False),
        (lambda c, x, y: np.where(c, 0, x / y), False),
        (lambda c, x, y: 1 / np.where(c, 4, x), False),
        (lambda c, x, y: 1 / np.where(c, 0, x), True),
        (lambda c, x, y: np.log(np.maximum(x, 0)), True),
        (lambda c, x, y: 1 / np.sign(x), True),
    ],
)
def test_few_constants_are_disguised(fn: Program, loudly: bool) -> None:
    """Only those that a compiler could compute with, and NumPy would then speak of."""
    assert folds_loudly({"r": formula(fn)}) is loudly


def test_what_another_member_reads_is_sure() -> None:
    """A value is kept or not as the whole group reads it."""
    first = formula(lambda c, x, y: x * y)
    second = formula(lambda c, x, y: np.where(c, x, y))
    second.inputs["first"] = second.inputs.pop(1)  # type: ignore[index,call-overload]
    members: dict[Any, Formula] = {"first": first, "second": second}
    assert unheard(members, ["second"]) == {id(first.result)}
    assert unheard(members, ["first", "second"]) == set()
