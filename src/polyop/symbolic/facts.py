"""What an environment knows of its sizes, and how it answers from that.

The order of asking is identity, constant difference, ranges, then what was
recorded. An equality also replaces a symbol, so that later results are written
in the symbols that are left.
"""

from __future__ import annotations

from polyop.symbolic.bounds import INF
from polyop.symbolic.condition import Condition, negate, normal
from polyop.symbolic.division import INTEGER, bounds_of
from polyop.symbolic.expr import Expr, Pool, primitive


class Facts:
    """The conditions taken for granted, over the expressions of one pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.replaced: dict[str, Expr] = {}
        self.decided: dict[Condition, bool] = {}
        self._resolved: dict[Expr, Expr] = {}

    def resolve(self, expr: Expr) -> Expr:
        """Write an expression in the symbols that are left."""
        if not self.replaced:
            return expr
        if expr not in self._resolved:
            self._resolved[expr] = self._substitute(expr)
        return self._resolved[expr]

    def _substitute(self, expr: Expr) -> Expr:
        if self.replaced.keys().isdisjoint(expr.symbols()):
            return expr

        def leaf(name: str) -> Expr:
            return self.replaced.get(name) or self.pool.named[name]

        def apply(op: str, *args: Expr) -> Expr:
            return INTEGER[op](self.pool, *args)

        out: Expr = expr.rebuild(leaf, self.pool.const, apply)
        return out

    def simplify(self, condition: Condition) -> Condition | bool:
        """Write a comparison of integers in the symbols that are left."""
        if not condition.is_relation or not self.replaced:
            return condition
        return normal(condition.op, self.resolve(condition.args[0]))

    def decide(self, condition: Condition | bool) -> bool | None:
        """Answer a condition, or give None if nothing known tells."""
        if not isinstance(condition, bool):
            condition = self.simplify(condition)
        if isinstance(condition, bool):
            return condition
        if condition.op in ("and", "or"):
            return self._decide_all(condition)
        if condition.op == "not":
            inner = self.decide(condition.args[0])
            return None if inner is None else not inner
        known = self.decided.get(condition)
        return known if known is not None else decide_by_range(condition)

    def _decide_all(self, condition: Condition) -> bool | None:
        answers = [self.decide(c) for c in condition.args]
        strong = condition.op == "or"  # one such answer settles it
        if strong in answers:
            return strong
        return self.decided.get(condition) if None in answers else not strong

    def learn(self, condition: Condition) -> None:
        """Take a condition for granted."""
        with self.pool.lock:
            left = self.simplify(condition)
            for known in (condition, left):
                if not isinstance(known, bool):
                    self.decided[known] = True
                    self.decided[negate(known)] = False
            if not isinstance(left, bool):
                self._draw(left)

    def _draw(self, condition: Condition) -> None:
        """Draw the conclusions from a condition that holds."""
        if condition.op == "and":
            for part in condition.args:
                self.learn(part)
        elif condition.is_relation:
            {"eq": self._equal, "ne": self._differ, "ge": self._bound}[condition.op](
                condition.args[0]
            )

    def _bound(self, expr: Expr) -> None:
        terms, factor = primitive(expr.terms)
        if factor > 0:
            self.pool.learn(terms, (-(expr.const // factor), INF))
        else:
            self.pool.learn(terms, (-INF, expr.const // -factor))

    def _differ(self, expr: Expr) -> None:
        """Move an end of the range that has just been ruled out."""
        terms, factor = primitive(expr.terms)
        value, bare = -expr.const // factor, self.pool.intern(0, terms)
        if bare.lo == value:
            self.pool.learn(terms, (value + 1, INF))
        if bare.hi == value:
            self.pool.learn(terms, (-INF, value - 1))

    def _equal(self, expr: Expr) -> None:
        terms, factor = primitive(expr.terms)
        self.pool.learn(terms, (-expr.const // factor, -expr.const // factor))
        solved = self._solve(expr)
        if solved is None:
            return
        name, value = solved
        self.replaced[name] = value
        self._resolved.clear()
        for other in self.replaced:
            self.replaced[other] = self._substitute(self.replaced[other])
        lo, hi = self.pool.named[name].range
        if value.terms:
            self._inherit(value, lo, hi)

    def _inherit(self, value: Expr, lo: float, hi: float) -> None:
        """Keep the range of a symbol for what has replaced it."""
        if isinstance(lo, int):
            self._bound(self.pool.intern(value.const - lo, value.terms))
        if isinstance(hi, int):
            self._bound(self.pool.sub(self.pool.const(hi), value))

    def _solve(self, expr: Expr) -> tuple[str, Expr] | None:
        """Find the symbol to replace: one without a hint first, then the newest."""
        found = []
        for monomial, coefficient in expr.terms:
            symbol = self.pool.symbols[monomial[0]]
            if len(monomial) > 1 or abs(coefficient) != 1 or symbol.op:
                continue
            rest = self.pool.add(self.pool.scale(expr, -coefficient), self.pool.named[symbol.name])
            if symbol.name not in rest.symbols():
                found.append((symbol.hint is None, symbol.number, symbol.name, rest))
        return max(found, key=lambda f: f[:2])[2:] if found else None


def decide_by_range(condition: Condition) -> bool | None:
    """Answer a comparison from the range of its expression."""
    if not condition.is_relation:
        return None
    expr: Expr = condition.args[0]
    lo, hi = bounds_of(expr.pool, expr)
    if condition.op == "ge":
        return True if lo >= 0 else False if hi < 0 else None
    apart = lo > 0 or hi < 0
    same = lo == hi == 0
    if not apart and not same:
        return None
    return apart if condition.op == "ne" else same
