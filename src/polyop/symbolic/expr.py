"""Integer expressions of sizes: interned polynomials over symbols.

An expression is a constant and sorted `(monomial, coefficient)` terms; a
monomial is the sorted numbers of its symbols, repeated for powers. Equal
expressions are one object, so identity is equality and the hash is free.
What does not expand (`//`, `%`, `max`, `min`, `**`) is a symbol of its own,
interned by its operation and operands. General algebra systems cost twenty to
a hundred times more here, and simplify no size any better.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from math import gcd
from typing import Any, NoReturn, TypeAlias

from polyop.errors import UsageTypeError
from polyop.forks import lock_maker
from polyop.symbolic.bounds import ANY, Range, intersect, range_product, range_scale, range_sum

Monomial: TypeAlias = tuple[int, ...]
Terms: TypeAlias = tuple[tuple[Monomial, int], ...]
Const: TypeAlias = Callable[[Any], Any]
Apply: TypeAlias = Callable[..., Any]

_new_lock = lock_maker()

#: What each operation of an expression means in Python.
PYTHON: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "truediv": operator.truediv,
    "pow": operator.pow,
    "max": max,
    "min": min,
}


class Symbol:
    """An unknown integer, or an operation that does not expand."""

    __slots__ = ("args", "declared", "hint", "name", "number", "op", "range")

    def __init__(self, number: int, name: str, hint: int | None, within: Range) -> None:
        self.number = number
        self.name = name
        self.hint = hint
        self.range = within
        self.declared = within  # what `range` was before guards narrowed it
        self.op = ""
        self.args: tuple[Expr, ...] = ()

    def __repr__(self) -> str:
        return self.name or f"{self.op}{self.args}"


class Expr:
    """An interned polynomial; made by its pool only."""

    __slots__ = ("_epoch", "_hint", "_range", "const", "pool", "sym", "terms")

    def __init__(self, pool: Pool, const: int, terms: Terms) -> None:
        self.pool = pool
        self.const = const
        self.terms = terms
        self.sym: Any = None  # the one SymInt of this expression, once there is one
        self._hint: Any = NotImplemented  # not computed yet; None means that there is none
        self._range: Range = ANY
        self._epoch = -1

    @property
    def hint(self) -> int | None:
        """The value in the call that was captured, or None if it depends on data."""
        if self._hint is NotImplemented:
            self._hint = self.pool.hint(self)
        return self._hint  # type: ignore[no-any-return]  # Any only until it is computed

    @property
    def range(self) -> Range:
        """The values that it can have, as far as ranges and guards tell."""
        if self._epoch != self.pool.epoch:
            self._range = self.pool.bound(self)
            self._epoch = self.pool.epoch
        return self._range

    @property
    def lo(self) -> int | float:
        """The least value."""
        return self.range[0]

    @property
    def hi(self) -> int | float:
        """The greatest value."""
        return self.range[1]

    def numbers(self) -> list[int]:
        """Give the symbols it is made of, operands before what uses them."""
        todo, seen = [self], set[int]()
        while todo:
            for monomial, _ in todo.pop().terms:
                for number in monomial:
                    if number not in seen:
                        seen.add(number)
                        todo += self.pool.symbols[number].args
        return sorted(seen)  # an operation is always numbered after its operands

    def symbols(self) -> tuple[str, ...]:
        """Give the names of the plain symbols in it, in order of creation."""
        found = (self.pool.symbols[n] for n in self.numbers())
        return tuple(s.name for s in found if not s.op)

    def rebuild(self, leaf: Callable[[str], Any], const: Const, apply: Apply) -> Any:
        """Compute this expression in another world, each shared part once.

        Args:
            leaf: gives the value of a plain symbol, by its name.
            const: gives the value of a plain int.
            apply: `apply(op, *operands)` with `op` one of "add", "mul", "floordiv", "mod",
                "max", "min", "pow".
        """
        values: dict[int, Any] = {}
        for number in self.numbers():
            symbol = self.pool.symbols[number]
            args = (arg._sum(values, const, apply) for arg in symbol.args)
            values[number] = apply(symbol.op, *args) if symbol.op else leaf(symbol.name)
        return self._sum(values, const, apply)

    def _sum(self, values: Mapping[int, Any], const: Const, apply: Apply) -> Any:
        parts = []
        for monomial, coefficient in self.terms:
            factors = [values[n] for n in monomial]
            if coefficient != 1:
                factors.insert(0, const(coefficient))
            parts.append(reduce(lambda x, y: apply("mul", x, y), factors))
        if self.const or not parts:
            parts.append(const(self.const))
        return reduce(lambda x, y: apply("add", x, y), parts)

    def evaluate(self, bindings: Mapping[str, int]) -> Any:
        """Give the value, for values of the symbols."""
        return self.rebuild(bindings.__getitem__, int, lambda op, *args: PYTHON[op](*args))

    def __str__(self) -> str:
        texts: dict[int, str] = {}
        for number in self.numbers():
            symbol = self.pool.symbols[number]
            texts[number] = symbol.name or spell(symbol, texts)
        return spell_sum(self, texts)

    __repr__ = __str__


def spell(symbol: Symbol, texts: Mapping[int, str]) -> str:
    """Write an operation as Python does."""
    args = [spell_sum(arg, texts) for arg in symbol.args]
    if symbol.op in ("max", "min"):
        return f"{symbol.op}({', '.join(args)})"
    x, y = (a if a.isalnum() else f"({a})" for a in args)
    return f"({x} {SIGNS[symbol.op]} {y})"


SIGNS = {"floordiv": "//", "mod": "%", "pow": "**", "add": "+", "mul": "*", "truediv": "/"}


def spell_sum(expr: Expr, texts: Mapping[int, str]) -> str:
    """Write the terms, those of higher degree first."""
    out = ""
    terms: list[tuple[Monomial, int]] = sorted(expr.terms, key=lambda t: (-len(t[0]), t[0]))
    for monomial, coefficient in [*terms, ((), expr.const)]:
        if not coefficient:
            continue
        factors = [texts[n] for n in monomial]
        if abs(coefficient) != 1 or not factors:
            factors.insert(0, str(abs(coefficient)))
        sign = ("-" if coefficient < 0 else "") if not out else " - " if coefficient < 0 else " + "
        out += sign + "*".join(factors)
    return out or "0"


class Pool:
    """The expressions, symbols and known facts of one environment."""

    def __init__(self) -> None:
        self.symbols: list[Symbol] = []
        self.exprs: dict[tuple[int, Terms], Expr] = {}
        self.named: dict[str, Expr] = {}
        self.operations: dict[tuple[Any, ...], Expr] = {}
        self.facts: dict[Terms, Range] = {}  # primitive terms (see `primitive`) to their range
        self.epoch = 0  # counts the facts, so that an expression knows when its range is old
        self.lock = _new_lock()

    def __reduce__(self) -> NoReturn:
        raise UsageTypeError(
            "symbolic sizes are not pickled", fix="write polyop.export.save(program, path)"
        )

    # -- making ----------------------------------------------------------------

    def intern(self, const: int, terms: Terms) -> Expr:
        """Give the one expression of these parts."""
        key = (const, terms)
        found = self.exprs.get(key)
        # One step for the interpreter, so two threads get one object.
        return found or self.exprs.setdefault(key, Expr(self, const, terms))

    def build(self, const: int, terms: Mapping[Monomial, int]) -> Expr:
        """Give the expression of these terms, in their normal order."""
        kept = [t for t in terms.items() if t[1]]
        if len(kept) > 1:
            kept.sort()
        return self.intern(const, tuple(kept))

    def const(self, value: int) -> Expr:
        """Give the expression of a plain int."""
        return self.intern(int(value), ())

    def symbol(self, name: str, hint: int | None, within: Range) -> Expr:
        """Make a new plain symbol."""
        with self.lock:
            found = self.named[name] = self._new_symbol(name, hint, within)
            return found

    def operation(self, op: str, args: tuple[Expr, ...], within: Range) -> Expr:
        """Give the symbol that stands for an operation which does not expand."""
        with self.lock:
            key = (op, *args)
            if key not in self.operations:
                hints = [a.hint for a in args]
                hint = None if None in hints else PYTHON[op](*hints)
                self.operations[key] = self._new_symbol("", hint, within)
                self.symbols[-1].op, self.symbols[-1].args = op, args
            return self.operations[key]

    def _new_symbol(self, name: str, hint: int | None, within: Range) -> Expr:
        number = len(self.symbols)
        self.symbols.append(Symbol(number, name, hint, within))
        return self.intern(0, (((number,), 1),))

    # -- arithmetic ------------------------------------------------------------

    def add(self, a: Expr, b: Expr) -> Expr:
        """Give `a + b`."""
        if not b.terms:
            return self.intern(a.const + b.const, a.terms)
        terms = dict(a.terms)
        for monomial, coefficient in b.terms:
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return self.build(a.const + b.const, terms)

    def scale(self, a: Expr, factor: int) -> Expr:
        """Give `factor * a`."""
        terms = tuple([(m, c * factor) for m, c in a.terms]) if factor else ()
        return self.intern(a.const * factor, terms)

    def sub(self, a: Expr, b: Expr) -> Expr:
        """Give `a - b`."""
        return self.add(a, self.scale(b, -1))

    def mul(self, a: Expr, b: Expr) -> Expr:
        """Give `a * b`, expanded."""
        if not b.terms:
            return self.scale(a, b.const)
        if not a.terms:
            return self.scale(b, a.const)
        if len(a.terms) == len(b.terms) == 1 and not a.const and not b.const:
            ((m, c),), ((n, d),) = a.terms, b.terms
            return self.intern(0, ((tuple(sorted(m + n)), c * d),))
        terms: dict[Monomial, int] = {}
        for m, c in parts(a):
            for n, d in parts(b):
                product = tuple(sorted(m + n))
                terms[product] = terms.get(product, 0) + c * d
        return self.build(terms.pop((), 0), terms)

    # -- what is known ---------------------------------------------------------

    def hint(self, expr: Expr) -> int | None:
        """Compute the hint of an expression from those of its symbols."""
        total = expr.const
        for monomial, coefficient in expr.terms:
            product = coefficient
            for number in monomial:
                factor = self.symbols[number].hint
                if factor is None:
                    return None
                product *= factor
            total += product
        return total

    def bound(self, expr: Expr) -> Range:
        """Compute the range of an expression from its symbols and the facts."""
        total: Range = (expr.const, expr.const)
        for monomial, coefficient in expr.terms:
            ranges = (self.symbols[n].range for n in monomial)
            total = range_sum(total, range_scale(reduce(range_product, ranges), coefficient))
        if not self.facts or not expr.terms:
            return total
        terms, factor = primitive(expr.terms)
        fact = range_scale(self.facts.get(terms, ANY), factor)
        return intersect(total, range_sum(fact, (expr.const, expr.const)))

    def learn(self, terms: Terms, within: Range) -> None:
        """Take for granted that primitive terms lie in a range."""
        with self.lock:
            self.facts[terms] = intersect(self.facts.get(terms, ANY), within)
            if len(terms) == 1 and len(terms[0][0]) == 1:
                symbol = self.symbols[terms[0][0][0]]
                symbol.range = intersect(symbol.range, within)
            self.epoch += 1


def parts(expr: Expr) -> Iterable[tuple[Monomial, int]]:
    """Give the terms, with the constant as one of them."""
    return (*expr.terms, ((), expr.const)) if expr.const else expr.terms


def primitive(terms: Terms) -> tuple[Terms, int]:
    """Split terms into a factor and terms without one, the first of them positive."""
    factor = gcd(*(c for _, c in terms)) * (1 if terms[0][1] > 0 else -1)
    return (terms, 1) if factor == 1 else (tuple((m, c // factor) for m, c in terms), factor)
