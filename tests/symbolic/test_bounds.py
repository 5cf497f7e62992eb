"""Interval arithmetic holds every result."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from polyop.symbolic.bounds import (
    INF,
    range_floordiv,
    range_max,
    range_min,
    range_mod,
    range_pow,
    range_product,
    range_scale,
    range_sum,
)
from polyop.symbolic.expr import PYTHON

RULES = {
    "add": range_sum,
    "mul": range_product,
    "floordiv": range_floordiv,
    "mod": range_mod,
    "max": range_max,
    "min": range_min,
    "pow": range_pow,
}


@st.composite
def inside(draw: Any) -> tuple[int, tuple[float, float]]:
    """A value, and a range around it."""
    value = draw(st.integers(-12, 12))
    below, above = (draw(st.one_of(st.none(), st.integers(0, 9))) for _ in range(2))
    lo = -INF if below is None else value - below
    return value, (lo, INF if above is None else value + above)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(sorted(RULES)), inside(), inside())
def test_a_range_holds_every_result(op: str, x: Any, y: Any) -> None:
    """PERFORMANCE 8: bounds follow the operands, whatever their signs."""
    (a, a_range), (b, b_range) = x, y
    if (op in ("floordiv", "mod") and b == 0) or (op == "pow" and b < 0):
        return
    lo, hi = RULES[op](a_range, b_range)
    assert lo <= PYTHON[op](a, b) <= hi
    assert all(isinstance(end, int) or abs(end) == INF for end in (lo, hi))


def test_ranges_are_tight_where_sizes_need_it() -> None:
    """Ranges of sizes lose nothing in the operations that shapes are made of."""
    assert range_floordiv((3, 11), (2, 2)) == (1, 5)
    assert range_floordiv((-20, -1), (3, 3)) == (-7, -1)
    assert range_product((2, INF), (3, INF)) == (6, INF)
    assert range_scale((2, 5), -3) == (-15, -6)
    assert range_mod((0, INF), (4, 4)) == (0, 3) and range_mod((0, 2), (4, 4)) == (0, 2)
    assert range_mod((-9, 9), (-4, -4)) == (-3, 0)
    assert range_pow((2, 3), (0, 4)) == (1, 81)
    assert range_product((2**190, 2**190), (2**190, 2**190)) == (2**200, INF)
