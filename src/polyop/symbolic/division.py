"""The operations that do not always expand: `//`, `%`, `max`, `min`, `**`.

Each takes out what divides exactly, decides by ranges where they tell, and
only then makes a symbol for the rest. Coefficients that do not divide stay
together: splitting `-s // 2` into `-s + s // 2` would be as true, and lose its
range.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

from polyop.symbolic.bounds import (
    Range,
    range_floordiv,
    range_max,
    range_min,
    range_mod,
    range_pow,
)
from polyop.symbolic.expr import Expr, Monomial, Pool, parts

#: Powers up to this one are multiplied out.
EXPANDED = 8


def floordiv(pool: Pool, n: Expr, d: Expr) -> Expr:
    """Give `n // d`."""
    if not d.terms:
        return floordiv_const(pool, n, d.const)
    if nonzero(d):
        whole, rest = split(pool, n, d)
        if not rest.terms and not rest.const:
            return whole
        small_n, small_d = cancel(pool, n, d)
        if small_d is not d:
            return floordiv(pool, small_n, small_d)
        if fits(pool, rest, d):
            return whole
        if whole.terms or whole.const:
            return pool.add(whole, floordiv(pool, rest, d))
    return pool.operation("floordiv", (n, d), range_floordiv(n.range, d.range))


def floordiv_const(pool: Pool, n: Expr, d: int) -> Expr:
    """Give `n // d` for a plain int."""
    if d == 0:
        raise ZeroDivisionError("integer division or modulo by zero")
    if d < 0:
        return floordiv_const(pool, pool.scale(n, -1), -d)
    whole, rest = split_const(pool, n, d)
    if rest.lo >= 0 and rest.hi < d:
        return whole
    common = gcd(d, *(c for _, c in rest.terms))
    # Exact for the constant too: the floor of a floor is the floor.
    rest = pool.build(rest.const // common, {m: c // common for m, c in rest.terms})
    divisor = pool.const(d // common)
    within = range_floordiv(rest.range, divisor.range)
    return pool.add(whole, pool.operation("floordiv", (rest, divisor), within))


def split_const(pool: Pool, n: Expr, d: int) -> tuple[Expr, Expr]:
    """Write `n` as `d * whole + rest`, with the rest's constant in `[0, d)`."""
    whole = {m: c // d for m, c in n.terms if c % d == 0}
    rest = {m: c for m, c in n.terms if c % d}
    return pool.build(n.const // d, whole), pool.build(n.const % d, rest)


def mod(pool: Pool, n: Expr, d: Expr) -> Expr:
    """Give `n % d`."""
    if not d.terms:
        return mod_const(pool, n, d.const)
    if nonzero(d):
        _, rest = split(pool, n, d)
        if (not rest.terms and not rest.const) or fits(pool, rest, d):
            return rest
        n = rest
    return pool.operation("mod", (n, d), range_mod(n.range, d.range))


def mod_const(pool: Pool, n: Expr, d: int) -> Expr:
    """Give `n % d` for a plain int."""
    if d == 0:
        raise ZeroDivisionError("integer division or modulo by zero")
    if d < 0:
        return pool.scale(mod_const(pool, pool.scale(n, -1), -d), -1)
    _, rest = split_const(pool, n, d)
    if rest.lo >= 0 and rest.hi < d:
        return rest
    common = gcd(d, rest.const, *(c for _, c in rest.terms))
    rest = pool.build(rest.const // common, {m: c // common for m, c in rest.terms})
    divisor = pool.const(d // common)
    within = range_mod(rest.range, divisor.range)
    return pool.scale(pool.operation("mod", (rest, divisor), within), common)


def nonzero(d: Expr) -> bool:
    """Tell whether ranges keep `d` away from zero."""
    return d.lo > 0 or d.hi < 0


def fits(pool: Pool, rest: Expr, d: Expr) -> bool:
    """Tell whether `0 <= rest < d` is known."""
    return rest.lo >= 0 and pool.sub(d, rest).lo > 0


def split(pool: Pool, n: Expr, d: Expr) -> tuple[Expr, Expr]:
    """Write `n` as `d * whole + rest` by polynomial division.

    A divisor of one term takes out every term it divides; a longer one takes
    out all or nothing, so that a rest is never longer than `n`.
    """
    lead = max(parts(d), key=degree)
    whole: dict[Monomial, int] = {}
    rest = n
    while hit := next((t for t in sorted(parts(rest), key=degree)[::-1] if goes(lead, t)), None):
        monomial, coefficient = without(hit[0], lead[0]), hit[1] // lead[1]
        whole[monomial] = whole.get(monomial, 0) + coefficient
        step = pool.build(0, {monomial: coefficient}) if monomial else pool.const(coefficient)
        rest = pool.sub(rest, pool.mul(d, step))
    if len(d.terms) + bool(d.const) > 1 and (rest.terms or rest.const):
        return pool.const(0), n
    return pool.build(whole.pop((), 0), whole), rest


def degree(term: tuple[Monomial, int]) -> tuple[int, Monomial]:
    """Order terms so that products keep the order, as polynomial division needs."""
    return len(term[0]), term[0]


def goes(lead: tuple[Monomial, int], term: tuple[Monomial, int]) -> bool:
    """Tell whether a term is a multiple of `lead`."""
    if term[1] % lead[1]:
        return False
    return all(term[0].count(n) >= lead[0].count(n) for n in set(lead[0]))


def without(monomial: Monomial, factor: Monomial) -> Monomial:
    """Divide a monomial by one of its factors."""
    left = list(monomial)
    for number in factor:
        left.remove(number)
    return tuple(left)


def cancel(pool: Pool, n: Expr, d: Expr) -> tuple[Expr, Expr]:
    """Divide both by what divides every term of both; `d` is known not to be zero."""
    both = [*parts(n), *parts(d)]
    common = tuple(both[0][0])
    for monomial, _ in both:
        for number in set(common):
            while common.count(number) > monomial.count(number):
                common = without(common, (number,))
    factor = gcd(*(c for _, c in both))
    if not common and factor == 1:
        return n, d
    small = [{without(m, common): c // factor for m, c in parts(e)} for e in (n, d)]
    small_n, small_d = (pool.build(terms.pop((), 0), terms) for terms in small)
    return small_n, small_d


def maximum(pool: Pool, a: Expr, b: Expr) -> Expr:
    """Give `max(a, b)`."""
    return extreme(pool, "max", a, b)


def minimum(pool: Pool, a: Expr, b: Expr) -> Expr:
    """Give `min(a, b)`."""
    return extreme(pool, "min", a, b)


def extreme(pool: Pool, op: str, a: Expr, b: Expr) -> Expr:
    """Pick the greater or the lesser one where ranges tell which it is."""
    lo, hi = bounds_of(pool, pool.sub(a, b))
    if lo >= 0:
        return a if op == "max" else b
    if hi <= 0:
        return b if op == "max" else a
    x, y = sorted((a, b), key=lambda e: (e.terms, e.const))  # one symbol for both orders
    bound = range_max if op == "max" else range_min
    return pool.operation(op, (x, y), bound(x.range, y.range))


def bounds_of(pool: Pool, expr: Expr, depth: int = 2) -> Range:
    """Bound an expression, also by what the extremes and remainders in it lie between."""
    lo, hi = expr.range
    for monomial, factor in expr.terms if depth else ():
        symbol = pool.symbols[monomial[0]]
        if len(monomial) > 1 or symbol.op not in ("min", "max", "mod"):
            continue
        rest = pool.sub(expr, pool.build(0, {monomial: factor}))
        ends = symbol.args
        if symbol.op == "mod":  # at most one less than what divides
            ends = (pool.sub(ends[1], pool.const(1)),) if ends[1].lo > 0 else ()
        found = [bounds_of(pool, pool.add(rest, pool.scale(e, factor)), depth - 1) for e in ends]
        if not found:
            continue
        below = (symbol.op != "max") == (factor > 0)
        least, most = (min, min) if below else (max, max)
        if symbol.op != "mod" or not below:
            lo = max(lo, least(f[0] for f in found))
        if symbol.op != "mod" or below:
            hi = min(hi, most(f[1] for f in found))
    return lo, hi


def raise_to(pool: Pool, base: Expr, exponent: Expr) -> Expr:
    """Give `base ** exponent`; the exponent is not negative."""
    if not exponent.terms and (exponent.const <= EXPANDED or not base.terms):
        if not base.terms:
            return pool.const(base.const**exponent.const)
        out = pool.const(1)
        for _ in range(exponent.const):
            out = pool.mul(out, base)
        return out
    return pool.operation("pow", (base, exponent), range_pow(base.range, exponent.range))


#: Every operation that takes two expressions to one.
INTEGER: dict[str, Callable[[Pool, Expr, Expr], Expr]] = {
    "add": Pool.add,
    "sub": Pool.sub,
    "mul": Pool.mul,
    "floordiv": floordiv,
    "mod": mod,
    "max": maximum,
    "min": minimum,
    "pow": raise_to,
}
