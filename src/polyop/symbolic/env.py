"""ShapeEnv: the sizes of one captured program, and what its code asked of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from polyop.errors import GuardOnDataDependentError, UsageError, UsageTypeError, nearest
from polyop.source import caller
from polyop.symbolic.arithmetic import Arithmetic
from polyop.symbolic.bounds import INF, Bound, Range
from polyop.symbolic.condition import Condition, negate, normal
from polyop.symbolic.expr import Expr
from polyop.symbolic.floats import FloatExpr
from polyop.symbolic.guards import Guard, InRange, SameSize
from polyop.symbolic.sym import Number, SymBool, SymInt

#: As they are printed, they are Python's own, which would ask.
_EXTREMES = re.compile(r"\b(max|min)\(")


class ShapeEnv:
    """The symbols of one captured program, its guards, and its run-time assertions.

    A backed symbol is the size of an input: a branch on it goes the way of
    the captured call and records a guard. An unbacked one depends on data: a
    branch on it raises, and `check` makes an assertion of what must hold.

    Attributes:
        guards: what the program's branches relied on, in order.
        input_guards: what the symbols themselves rely on: sizes that are
            constants, sizes that share a symbol, ranges.
        layouts: by source, the strides of inputs that are expressions of sizes; each is a
            guard where `bind` is given that stride.
        checks: what `check` assumed of unbacked sizes.
        on_failure: is told of each question that data alone answers, if it is set.
        version: counts the guards and checks; what was remembered under
            another version may be written in symbols that are replaced now.

    Example:
        >>> env = ShapeEnv()
        >>> rows = env.create_symbol(5, "x.shape[0]")
        >>> (rows * 4) // 4 is rows, rows * 2 + 1
        (True, 2*s0 + 1)
    """

    def __init__(self) -> None:
        self.guards: list[Guard] = []
        self.input_guards: list[Guard] = []
        self.layouts: dict[str, Guard] = {}
        self.checks: list[Guard] = []
        self.version = 0
        self.on_failure: Callable[[Exception], None] | None = None
        self.sources: dict[str, Expr] = {}
        self.origins: dict[str, str] = {}  # of each unbacked symbol
        self._shared: dict[int, Expr] = {}
        self._first: dict[str, str] = {}  # each backed symbol to the source that gives its value
        arithmetic = self._arithmetic = Arithmetic(self)
        # Bound once: these are the way of every operation that no memo answers.
        self.operate, self.operate_new = arithmetic.operate, arithmetic.operate_new
        self.compare = arithmetic.compare
        self.connect, self.wrap = arithmetic.connect, arithmetic.wrap
        self.pool, self.facts = arithmetic.pool, arithmetic.facts

    # -- symbols ---------------------------------------------------------------

    def create_symbol(
        self,
        hint: int,
        source: str = "",
        *,
        dynamic: bool = False,
        min: int | None = None,
        max: int | None = None,
    ) -> int | SymInt:
        """Give the number that stands for the size of an input.

        0 and 1 become constants, and equal sizes share a symbol, unless `dynamic` (S150). A
        symbol is taken to stay on the side of 2 that its hint is on, as in PyTorch, so that
        programs are not full of guards against broadcasting: its least value is
        `min(hint, 2)`, or unbounded for a negative hint, where `min` does not say otherwise.

        Args:
            hint: the size in the captured call.
            source: where the size is found, such as `"x.shape[0]"`; "" if nowhere again.
            dynamic: make a symbol of its own, for 0 and 1 too.
            min: the least value.
            max: the greatest value.

        Raises:
            UsageError: for a range that does not hold the hint, or a source with two sizes.
        """
        within = checked_range(min, max, default=default_least(hint))
        check_int("hint", hint)
        if not within[0] <= hint <= within[1]:
            raise UsageError(
                "the size of an input is not in its range",
                argument=source,
                declared=str(InRange(source or "size", *within)),
                seen=hint,
            )
        with self.pool.lock:
            known = self.sources.get(source)
            if known is None:
                known = self._input(hint, source, dynamic, within, shared=min is None is max)
            elif known.hint != hint:
                raise UsageError(
                    "one source is given two sizes",
                    argument=source,
                    declared=known.hint,
                    seen=hint,
                    fix="give each input a source of its own",
                )
        return self.wrap(known)  # type: ignore[no-any-return]  # of a plain symbol or constant

    def _input(self, hint: int, source: str, dynamic: bool, within: Range, shared: bool) -> Expr:
        """Choose what stands for an input size, and note what that relies on."""
        if not dynamic and hint in (0, 1):
            expr = self.pool.const(hint)
        elif not dynamic and shared and hint in self._shared:
            expr = self._shared[hint]
        else:
            expr = self._backed(hint, within)
            if not dynamic and shared:
                self._shared[hint] = expr
        self._bind_source(source, expr)
        return expr

    def _backed(self, hint: int, within: Range) -> Expr:
        name = f"s{len(self.pool.named) - len(self.origins)}"
        if within != (-INF, INF):
            self.input_guards.append(Guard(InRange(name, *within), caller()))
        return self.pool.symbol(name, hint, within)

    def _bind_source(self, source: str, expr: Expr) -> None:
        if not source:
            return
        self.sources[source] = expr
        if expr.terms and self._first.setdefault(str(expr), source) == source:
            return
        self.input_guards.append(Guard(SameSize(source, expr), caller()))

    def note_stride(self, source: str, stride: int | SymInt) -> None:
        """Note that a stride of an input is an expression of sizes.

        Args:
            source: where the stride is found, such as `"x.stride(0)"`.
            stride: what it is taken to be.
        """
        expr = stride.expr if isinstance(stride, SymInt) else self.pool.const(stride)
        self.layouts[source] = Guard(SameSize(source, expr), caller())

    def create_unbacked(self, *, min: int = 0, max: int | None = None, origin: str = "") -> SymInt:
        """Give a new size that depends on data, named `u0`, `u1`, ...

        Args:
            min: the least value; not negative.
            max: the greatest value.
            origin: what makes it, for errors: an operator and its place.

        Raises:
            UsageError: for a negative `min`, a `max` under it, or a bound that is no plain int.
        """
        if min is None:
            raise UsageError("a bound is a plain int", argument="min", seen="None",
                             fix="leave it out for 0")  # fmt: skip
        within = checked_range(min, max, default=0)
        if within[0] < 0:
            raise UsageError("a size is never negative", argument="min", seen=min)
        with self.pool.lock:
            name = f"u{len(self.origins)}"
            self.origins[name] = origin or f"made at {caller()}"
            self.version += 1
            return self.wrap(self.pool.symbol(name, None, within))  # type: ignore[no-any-return]

    # -- answers ---------------------------------------------------------------

    def decide(self, condition: Condition) -> bool | None:
        """Answer a condition without a guard, or give None."""
        return self.facts.decide(condition)

    def hint_of_condition(self, condition: Condition) -> bool | None:
        """Give the answer in the captured call, without a guard; None where data decides."""
        known = self.decide(condition)
        return condition.hint if known is None else known

    def guard(self, condition: Condition) -> bool:
        """Answer a condition as the captured call does, and record that it was relied on.

        Raises:
            GuardOnDataDependentError: if the answer depends on data.
        """
        known = self.decide(condition)
        if known is not None:
            return known
        left = self.facts.simplify(condition)  # after a check, perhaps in backed symbols
        condition = condition if isinstance(left, bool) else left
        answer = condition.hint
        if answer is None:
            raise self._data_dependent(condition, f"polyop.symbolic.check({condition})")
        self._record(self.guards, condition if answer else negate(condition), "")
        return answer

    def fix(self, expr: Expr | FloatExpr) -> Any:
        """Give the value in the captured call, and guard that it is this one.

        Raises:
            GuardOnDataDependentError: if it depends on data.
        """
        if isinstance(expr, Expr):
            expr = self.facts.resolve(expr)
            if not expr.terms:
                return expr.const
        if expr.hint is None:
            raise self._data_dependent(expr, f"polyop.symbolic.check({expr} == <size>)")
        if isinstance(expr, FloatExpr):
            self.guard(Condition("eq", (expr, expr.hint)))
            return expr.hint
        equal = normal("eq", self.pool.sub(expr, self.pool.const(expr.hint)))
        if not isinstance(equal, bool):
            self.guard(equal)
        return expr.hint

    def assume(self, condition: Condition, message: str = "") -> None:
        """Take a condition on unbacked sizes for granted, and assert it at run time."""
        self._record(self.checks, condition, message)

    def _record(self, where: list[Guard], condition: Condition, message: str) -> None:
        with self.pool.lock:
            where.append(Guard(condition, caller(), message))
            replaced = len(self.facts.replaced)
            self.facts.learn(condition)
            if len(self.facts.replaced) != replaced:
                self._arithmetic.memo.clear()
            self.version += 1

    def is_unbacked(self, part: Any) -> bool:
        """Tell whether an expression or condition depends on data."""
        return part.hint is None

    def _data_dependent(self, part: Any, fix: str) -> GuardOnDataDependentError:
        unknown = [name for name in part.symbols() if name in self.origins]
        origins = "; ".join(f"{name}: {self.origins[name]}" for name in unknown)
        what = "whether" if isinstance(part, Condition) else "the value of"
        error = GuardOnDataDependentError(
            f"{what} {part} is asked, and {', '.join(unknown)} is known only at run time",
            seen=f"{part}; {origins}",
            source=caller(),
            fix="before this line, write " + _EXTREMES.sub(r"polyop.symbolic.sym_\1(", fix),
        )
        if self.on_failure is not None:
            self.on_failure(error)
        return error

    # -- reading ---------------------------------------------------------------

    @property
    def runtime_asserts(self) -> list[Guard]:
        """What a program asserts when it runs: ranges of unbacked sizes, and each `check`."""
        ranges = [
            Guard(InRange(name, *self._declared(name)), message=f"{name}, {origin}")
            for name, origin in self.origins.items()
        ]
        return ranges + self.checks

    def _declared(self, name: str) -> Range:
        return self.pool.symbols[self.pool.named[name].terms[0][0][0]].declared

    def simplify(self, x: Any) -> Any:
        """Write a size in the symbols that equality guards have left."""
        if isinstance(x, SymBool):
            known = self.decide(x.condition)
            return x if known is None else known
        return self.wrap(self.facts.resolve(x.expr)) if isinstance(x, SymInt) else x

    def range_of(self, x: int | SymInt) -> Range:
        """Give the least and the greatest value of a size."""
        return self.facts.resolve(x.expr).range if isinstance(x, SymInt) else (x, x)

    def evaluate(self, x: Any, bindings: Mapping[str, int]) -> Any:
        """Give the value of a size, expression or condition, for values of the symbols."""
        part = x.expr if isinstance(x, Number) else x.condition if isinstance(x, SymBool) else x
        return part.evaluate(bindings) if hasattr(part, "evaluate") else part

    def bind(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Give the values of the backed symbols, and of the sources, for new input sizes.

        Args:
            sizes: the size at each source, and the strides that are to be compared.

        Raises:
            UsageError: for a source that has no size.
        """
        missing = [source for source in self.sources if source not in sizes]
        if missing:
            raise UsageError(
                f"no size is given for {missing[0]!r}{nearest(missing[0], sizes)}",
                declared=", ".join(self.sources),
            )
        symbols = {name: sizes[source] for name, source in self._first.items()}
        strides = {s: sizes[s] for s in self.layouts if s in sizes}
        return {**{s: sizes[s] for s in self.sources}, **strides, **symbols}

    def check_guards(self, bindings: Mapping[str, int]) -> Guard | None:
        """Give the first guard that does not hold, or None if the program can run.

        Args:
            bindings: the answer of `bind`.
        """
        # A copy: a thread that captures may add a guard meanwhile.
        layouts = [guard for source, guard in [*self.layouts.items()] if source in bindings]
        for guard in [*self.input_guards, *layouts, *self.guards]:
            if not guard.holds(bindings):
                return guard
        return None


def default_least(hint: int) -> int | None:
    """Give the least value that a size is taken to have, where nobody said."""
    return min(hint, 2) if isinstance(hint, int) and hint >= 0 else None


def check_int(name: str, value: object) -> None:
    """Refuse what is no plain int; a symbolic bound would bound nothing."""
    if type(value) is not int:
        raise UsageTypeError(
            f"{name} is a plain int", argument=name, seen=f"{type(value).__name__} {value}"
        )


def checked_range(least: int | None, most: int | None, default: int | None) -> Range:
    """Give a range, after refusing one that is empty or is not of plain ints."""
    for name, value in (("min", least), ("max", most)):
        if value is not None:
            check_int(name, value)
    if least is None:
        least = default if most is None or default is None else min(default, most)
    lo: Bound = -INF if least is None else least
    hi: Bound = INF if most is None else most
    if hi < lo:
        raise UsageError("a range ends before it begins", argument="max", declared=lo, seen=hi)
    return lo, hi
