"""Conditions on sizes, as data: what a guard records and a check asserts.

Integer comparisons have one normal form, an expression against zero, so that
`a < b`, `b > a` and `2*a < 2*b` are one condition with one answer. Floats are
compared as they are written: their arithmetic has no normal form.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

from polyop.symbolic.expr import Apply, Const, Expr, Pool, primitive
from polyop.symbolic.floats import FloatExpr, rebuild_float

COMPARE: dict[str, Callable[..., Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "and": lambda x, y: x and y,
    "or": lambda x, y: x or y,
    "not": operator.not_,
}
SIGNS = {"eq": "==", "ne": "!=", "ge": ">=", "lt": "<", "le": "<=", "and": "and", "or": "or"}


@dataclass(frozen=True)
class Condition:
    """`op` is "eq", "ne", "ge" (one integer against zero), "eq", "lt", "le" (two floats),
    "and", "or" or "not".
    """

    op: str
    args: tuple[Any, ...]

    @cached_property
    def is_relation(self) -> bool:
        """Whether this is one integer expression against zero."""
        return len(self.args) == 1 and isinstance(self.args[0], Expr)

    def __str__(self) -> str:
        if self.is_relation:
            return spell_relation(self.op, self.args[0])
        texts = [f"({a})" if isinstance(a, Condition) else str(a) for a in self.args]
        return f"not {texts[0]}" if self.op == "not" else f" {SIGNS[self.op]} ".join(texts)

    def rebuild(self, leaf: Callable[[str], Any], const: Const, apply: Apply) -> Any:
        """Compute this condition in another world.

        Args:
            leaf: gives the value of a symbol, by its name.
            const: gives the value of a plain number.
            apply: `apply(op, *operands)`, with the operations of expressions and
                "eq", "ne", "ge", "lt", "le", "and", "or", "not".
        """
        values = [rebuild_part(a, leaf, const, apply) for a in self.args]
        if self.is_relation:
            values.append(const(0))
        return apply(self.op, *values) if len(values) < 3 else reduce_by(self.op, values, apply)

    def evaluate(self, bindings: Mapping[str, int]) -> bool:
        """Tell whether it holds, for values of the symbols."""
        if self.op in ("and", "or"):
            return (all if self.op == "and" else any)(c.evaluate(bindings) for c in self.args)
        values = [a.evaluate(bindings) if hasattr(a, "evaluate") else a for a in self.args]
        if self.is_relation:
            values.append(0)
        return bool(COMPARE[self.op](*values))

    @property
    def hint(self) -> bool | None:
        """The answer in the captured call, or None where it depends on data."""
        hints = [a.hint if hasattr(a, "hint") else a for a in self.args]
        if None in hints:
            return None
        if self.op in ("and", "or"):
            return all(hints) if self.op == "and" else any(hints)
        return bool(COMPARE[self.op](*hints, 0) if self.is_relation else COMPARE[self.op](*hints))

    def symbols(self) -> tuple[str, ...]:
        """Give the names of the symbols in it, each once."""
        return tuple({s: None for a in self.args if hasattr(a, "symbols") for s in a.symbols()})


def rebuild_part(part: Any, leaf: Callable[[str], Any], const: Const, apply: Apply) -> Any:
    """Compute an operand of a condition in another world."""
    if isinstance(part, (Expr, Condition)):
        return part.rebuild(leaf, const, apply)
    return rebuild_float(part, leaf, const, apply) if isinstance(part, FloatExpr) else const(part)


def reduce_by(op: str, values: list[Any], apply: Apply) -> Any:
    """Apply an operation of two operands to many."""
    return reduce(lambda x, y: apply(op, x, y), values)


def spell_relation(op: str, expr: Expr) -> str:
    """Write an expression against zero with each term on the side where it is positive."""
    sign = SIGNS[op]
    terms, pool = expr.terms, expr.pool
    if terms and all(c < 0 for _, c in terms):
        expr, sign = pool.scale(expr, -1), {">=": "<="}.get(sign, sign)
    plus = {m: c for m, c in expr.terms if c > 0}
    minus = {m: -c for m, c in expr.terms if c < 0}
    if sign == ">=" and minus and expr.const == -1:
        return f"{pool.build(0, plus)} > {pool.build(0, minus)}"
    # The constant goes to the right, unless only one side would have anything at all.
    left_const = expr.const if minus and expr.const > 0 else 0
    left, right = pool.build(left_const, plus), pool.build(left_const - expr.const, minus)
    return f"{left} {sign} {right}"


def compare_integers(pool: Pool, op: str, a: Expr, b: Expr) -> Condition | bool:
    """Give the normal form of `a op b`, with `op` one of "eq", "ne", "lt", "le", "gt", "ge"."""
    if op in ("eq", "ne"):
        return normal(op, pool.sub(a, b))
    if op in ("lt", "le"):
        a, b = b, a
    difference = pool.sub(a, b)
    strict = op in ("lt", "gt")
    return normal("ge", pool.intern(difference.const - strict, difference.terms))


def normal(op: str, expr: Expr) -> Condition | bool:
    """Divide an expression against zero by what divides its terms."""
    if not expr.terms:
        return bool(COMPARE[op](expr.const, 0))
    terms, factor = primitive(expr.terms)
    if op == "ge":
        size = abs(factor)
        terms = tuple([(m, c // size) for m, c in expr.terms])
        return Condition(op, (expr.pool.intern(expr.const // size, terms),))
    if expr.const % factor:
        return op == "ne"
    return Condition(op, (expr.pool.intern(expr.const // factor, terms),))


def negate(condition: Condition) -> Condition:
    """Give the opposite condition."""
    op, args = condition.op, condition.args
    if op in ("and", "or"):
        return Condition("or" if op == "and" else "and", tuple(negate(a) for a in args))
    if op == "not":
        return args[0]  # type: ignore[no-any-return]  # what "not" holds is a condition
    if not condition.is_relation:
        return Condition("not", (condition,))  # with NaN, `not x < y` is not `x >= y`
    if op in ("eq", "ne"):
        return Condition("ne" if op == "eq" else "eq", args)
    pool = args[0].pool
    return Condition("ge", (pool.sub(pool.const(-1), args[0]),))
