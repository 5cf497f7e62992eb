"""Interval arithmetic over integers, with infinite ends.

A range is `(lo, hi)`. An infinite end is a float, a finite one a Python int.
Every function gives a range that holds each result the operands can give, so
a wider answer is always right and a narrower one never is.
"""

from __future__ import annotations

import math
from typing import TypeAlias

INF = math.inf
Bound: TypeAlias = int | float
Range: TypeAlias = tuple[Bound, Bound]
ANY: Range = (-INF, INF)

#: Past this an end is widened: an int beyond a float's reach cannot meet an infinity.
LIMIT = 2**200


def bound_sum(x: Bound, y: Bound) -> Bound:
    """Add two ends; an infinite one wins."""
    if isinstance(x, float):
        return x
    return y if isinstance(y, float) else x + y


def bound_product(x: Bound, y: Bound) -> Bound:
    """Multiply two ends; zero wins over infinity."""
    if not x or not y:
        return 0
    if isinstance(x, float) or isinstance(y, float):
        return INF if (x > 0) == (y > 0) else -INF
    return x * y


def bound_quotient(x: Bound, y: Bound) -> Bound:
    """Divide two ends towards the floor; `y` is not zero."""
    if isinstance(y, float):
        return 0 if x == 0 or (x > 0) == (y > 0) else -1
    if isinstance(x, float):
        return INF if (x > 0) == (y > 0) else -INF
    return x // y


def widen(lo: Bound, hi: Bound) -> Range:
    """Replace ends that are too large to compute with."""
    lo = -INF if lo < -LIMIT else min(lo, LIMIT)
    hi = INF if hi > LIMIT else max(hi, -LIMIT)
    return lo, hi


def intersect(a: Range, b: Range) -> Range:
    """Give the values that lie in both ranges."""
    return max(a[0], b[0]), min(a[1], b[1])


def range_sum(a: Range, b: Range) -> Range:
    """Bound `x + y`."""
    return bound_sum(a[0], b[0]), bound_sum(a[1], b[1])


def range_product(a: Range, b: Range) -> Range:
    """Bound `x * y`."""
    if a[0] >= 0 and b[0] >= 0:
        return widen(bound_product(a[0], b[0]), bound_product(a[1], b[1]))
    corners = [bound_product(x, y) for x in a for y in b]
    return widen(min(corners), max(corners))


def range_scale(a: Range, factor: int) -> Range:
    """Bound `factor * x`."""
    return range_product(a, (factor, factor))


def range_floordiv(a: Range, b: Range) -> Range:
    """Bound `x // y`; a zero in `b` raises when the program runs, so it bounds nothing."""
    parts = [intersect(b, (1, INF)), intersect(b, (-INF, -1))]
    corners = [bound_quotient(x, y) for p in parts if p[0] <= p[1] for x in a for y in p]
    return (min(corners), max(corners)) if corners else ANY


def range_mod(a: Range, b: Range) -> Range:
    """Bound `x % y`: the result has the sign of `y` and is nearer to zero than it."""
    lo = min(bound_sum(b[0], 1), 0) if b[0] < 0 else 0
    hi = max(bound_sum(b[1], -1), 0) if b[1] > 0 else 0
    if a[0] >= 0 and b[0] >= 0:
        hi = min(hi, a[1])
    return lo, hi


def range_max(a: Range, b: Range) -> Range:
    """Bound `max(x, y)`."""
    return max(a[0], b[0]), max(a[1], b[1])


def range_min(a: Range, b: Range) -> Range:
    """Bound `min(x, y)`."""
    return min(a[0], b[0]), min(a[1], b[1])


def range_pow(a: Range, b: Range) -> Range:
    """Bound `x ** y`; nothing is said of negative bases."""
    if a[0] < 0 or b[0] < 0:
        return ANY
    lo = power(a[0], b[0]) if a[0] >= 1 else 0
    # Zero to the zeroth is one, so the upper end is never less.
    return widen(min(lo, LIMIT), 1 if a[1] <= 1 else power(a[1], b[1]))


def power(base: Bound, exponent: Bound) -> Bound:
    """Raise an end that is not negative; give infinity early."""
    if base == 1 or exponent == 0:
        return 1
    if isinstance(base, float) or isinstance(exponent, float):
        return INF
    # An estimate first: the exact number may not fit into memory.
    return INF if exponent * (base.bit_length() - 1) > 200 else base**exponent
