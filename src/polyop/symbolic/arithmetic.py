"""What the operators of symbolic numbers do, once no memo answers."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from polyop.errors import UsageError
from polyop.symbolic.condition import Condition, compare_integers, negate, normal
from polyop.symbolic.division import INTEGER
from polyop.symbolic.expr import PYTHON, Expr, Pool
from polyop.symbolic.facts import Facts
from polyop.symbolic.floats import FloatExpr, FloatPool
from polyop.symbolic.sym import Memo, Number, SymBool, SymFloat, SymInt

FLIPPED = {"eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


class Arithmetic:
    """The operations on the numbers of one environment."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.pool = Pool()
        self.floats = FloatPool()
        self.facts = Facts(self.pool)
        self.memo = Memo()
        self.conditions: dict[Condition, SymBool] = {}

    # -- numbers of expressions ------------------------------------------------

    def wrap(self, expr: Any) -> Any:
        """Give the number of an expression: a plain int, or its one SymInt or SymFloat."""
        if isinstance(expr, Expr) and not expr.terms:
            return expr.const
        if not isinstance(expr, (Expr, FloatExpr)):
            return expr
        # Never by truth: that of a number is a question about it.
        return expr.sym if expr.sym is not None else self._make(expr)

    def _make(self, expr: Any) -> Any:
        with self.pool.lock:
            if expr.sym is None:
                number: Any = (SymInt if isinstance(expr, Expr) else SymFloat)()
                number.env, number.expr = self.env, expr
                if isinstance(expr, Expr):
                    number.memo = self.memo
                expr.sym = number
            return expr.sym

    def wrap_condition(self, condition: Condition | bool) -> Any:
        """Give a plain bool where the answer is known, else the one SymBool of a condition."""
        known = self.facts.decide(condition)
        if known is not None:
            return known
        assert isinstance(condition, Condition)
        with self.pool.lock:
            if condition not in self.conditions:
                found = self.conditions[condition] = SymBool()
                found.env, found.condition, found.answer = self.env, condition, None
            return self.conditions[condition]

    def unwrap(self, x: Any) -> Any:
        """Give the expression or float that an operand stands for, or None."""
        if type(x) is SymInt and x.env is self.env:
            return x.expr if not self.facts.replaced else self.facts.resolve(x.expr)
        if type(x) is int:
            return self.pool.intern(x, ())
        if isinstance(x, Number):
            if x.env is not self.env:
                raise UsageError(
                    "symbolic sizes of two environments meet",
                    seen=x,
                    fix="make all the sizes of one program in one ShapeEnv",
                )
            return x.expr
        if isinstance(x, (Integral, SymBool)):  # bool and NumPy's ints too
            return self.pool.const(int(x))
        return float(x) if isinstance(x, Real) else None

    # -- operations ------------------------------------------------------------

    def operate(self, op: str, x: Any, y: Any) -> Any:
        """Give `x op y`."""
        known = None
        # The class first, as in SymInt: equal numbers of other classes have other results.
        if type(x) is SymInt:
            if type(y) is int:
                known = self.memo.int_others.get((op, x, y))
            elif type(y) is SymInt:
                known = self.memo.others.get((op, x, y))
        return self.operate_new(op, x, y) if known is None else known

    def operate_new(self, op: str, x: Any, y: Any) -> Any:
        """Give `x op y`, where no memo has it."""
        a, b = self.unwrap(x), self.unwrap(y)
        if a is None or b is None:
            return NotImplemented
        if isinstance(a, Expr) and isinstance(b, Expr) and op not in ("truediv", "pow"):
            result = self.wrap(INTEGER[op](self.pool, a, b))
            if op in DIVISIONS and b.terms:
                self._rely_on_divisor(b)
        else:
            result = self._operate_rare(op, a, b)
        if type(x) is SymInt:
            self.memo.keep(op, x, y, result)
        return result

    def _rely_on_divisor(self, divisor: Expr) -> None:
        """Rely on a divisor that is not zero: what the result becomes part of may lose it.

        Raises:
            ZeroDivisionError: it is zero in the captured call.
        """
        differs = normal("ne", divisor)
        known = self.facts.decide(differs)
        if known is None:
            known = divisor.hint != 0
            if divisor.hint is None:
                self.env.assume(differs, "a divisor")
            elif known:
                self.env.guard(differs)
        if not known:
            raise ZeroDivisionError("integer division or modulo by zero")

    def _operate_rare(self, op: str, a: Any, b: Any) -> Any:
        if op == "pow" and isinstance(a, Expr) and isinstance(b, Expr):
            return self._power(a, b)
        return self._floats(op, a, b)

    def _power(self, a: Expr, b: Expr) -> Any:
        if b.lo < 0 and self.compare("lt", self.wrap(b), 0):
            return self._floats("pow", a, b)  # in Python, too, a negative power is a float
        return self.wrap(INTEGER["pow"](self.pool, a, b))

    def _floats(self, op: str, a: Any, b: Any) -> Any:
        if op == "sub":
            op, b = "add", self._negative(b)
        x, y = (p.const if isinstance(p, Expr) and not p.terms else p for p in (a, b))
        if not any(isinstance(p, (Expr, FloatExpr)) for p in (x, y)):
            return PYTHON[op](x, y)
        if not isinstance(y, (Expr, FloatExpr)) and y == 0 and op in DIVISIONS:
            raise ZeroDivisionError("division by zero")
        return self.wrap(self.floats.make(op, (x, y)))

    def _negative(self, part: Any) -> Any:
        if isinstance(part, Expr):
            return self.pool.scale(part, -1)
        return self.floats.make("mul", (part, -1.0)) if isinstance(part, FloatExpr) else -part

    # -- comparisons -----------------------------------------------------------

    def compare(self, op: str, x: Any, y: Any) -> Any:
        """Give `x op y`, as a plain bool where it is known."""
        if type(x) is not SymInt:
            return self._compare(op, x, y)
        known = None
        # The class first, as in SymInt: equal numbers of other classes have other results.
        if type(y) is int:
            known = self.memo.int_others.get((op, x, y))
        elif type(y) is SymInt:
            known = self.memo.others.get((op, x, y))
        if known is not None:
            return known
        result = self._compare(op, x, y)
        if isinstance(result, bool):  # an open question may be answered by the next guard
            self.memo.keep(op, x, y, result)
        return result

    def _compare(self, op: str, x: Any, y: Any) -> Any:
        a, b = self.unwrap(x), self.unwrap(y)
        if a is None or b is None:
            return NotImplemented
        if isinstance(a, Expr) and isinstance(b, float):
            return self._against_float(op, a, b)
        if isinstance(a, Expr) and isinstance(b, Expr):
            return self.wrap_condition(compare_integers(self.pool, op, a, b))
        return self._compare_floats(op, a, b)

    def _against_float(self, op: str, a: Expr, b: float) -> Any:
        """Compare an integer with a float exactly, as Python does."""
        if math.isnan(b):
            return op == "ne"
        if math.isinf(b):
            return op != "eq" and (op == "ne" or (op in ("lt", "le")) == (b > 0))
        if op in ("eq", "ne") and not b.is_integer():
            return op == "ne"
        whole = math.ceil(b) if op in ("lt", "ge") else math.floor(b)
        return self.wrap_condition(compare_integers(self.pool, op, a, self.pool.const(whole)))

    def _compare_floats(self, op: str, a: Any, b: Any) -> Any:
        if op in ("gt", "ge"):
            a, b, op = b, a, FLIPPED[op]
        x, y = (p.const if isinstance(p, Expr) and not p.terms else p for p in (a, b))
        condition = Condition("eq" if op == "ne" else op, (x, y))
        return self.wrap_condition(negate(condition) if op == "ne" else condition)

    def connect(self, op: str, x: SymBool, y: Any) -> Any:
        """Give "and", "or" or "not" of conditions, as a plain bool where it is known."""
        if op == "not":
            return self.wrap_condition(negate(x.condition))
        if isinstance(y, bool):
            return y if y == (op == "or") else x
        if not isinstance(y, SymBool):
            return NotImplemented
        return self.wrap_condition(Condition(op, (x.condition, y.condition)))


DIVISIONS = ("truediv", "floordiv", "mod")
