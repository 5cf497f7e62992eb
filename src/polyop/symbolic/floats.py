"""Float expressions of sizes: a recorded tree, interned, with nothing simplified.

Float arithmetic neither commutes nor associates exactly, so each operation is
kept as it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from polyop.symbolic.expr import PYTHON, SIGNS, Apply, Const, Expr


class FloatExpr:
    """One float operation on integers, floats and other float expressions."""

    __slots__ = ("args", "hint", "number", "op", "sym")

    def __init__(self, number: int, op: str, args: tuple[Any, ...]) -> None:
        self.number = number
        self.op = op
        self.args = args
        self.sym: Any = None  # the one SymFloat of this expression
        hints = [part_hint(a) for a in args]
        # As a power may, a negative base gives a complex number, which is no hint of a float.
        self.hint: Any = None if None in hints else PYTHON[op](*hints)

    def rebuild(self, leaf: Callable[[str], Any], const: Const, apply: Apply) -> Any:
        """Compute this expression in another world; see `Expr.rebuild`."""
        return rebuild_float(self, leaf, const, apply)

    def evaluate(self, bindings: Mapping[str, int]) -> Any:
        """Give the value, for values of the symbols."""
        return self.rebuild(bindings.__getitem__, lambda x: x, lambda op, *args: PYTHON[op](*args))

    def ratio(self) -> tuple[Any, Any] | None:
        """Give the integers that it is the quotient of, or None."""
        whole = self.op == "truediv" and all(isinstance(a, (int, Expr)) for a in self.args)
        return (self.args[0], self.args[1]) if whole else None

    def symbols(self) -> tuple[str, ...]:
        """Give the names of the symbols in it, each once."""
        leaves = (a for f in below(self) for a in f.args if isinstance(a, Expr))
        return tuple({name: None for e in leaves for name in e.symbols()})

    def __str__(self) -> str:
        texts: dict[Any, str] = {}
        for part in below(self):
            args = [texts.get(a) or str(a) for a in part.args]
            texts[part] = spell_float(part, args)
        return (
            texts[self].removeprefix("(").removesuffix(")") if SIGNS.get(self.op) else texts[self]
        )

    __repr__ = __str__


def spell_float(part: FloatExpr, args: list[str]) -> str:
    """Write one operation as Python does."""
    if part.op not in SIGNS:
        return f"{part.op}({', '.join(args)})"
    pairs = zip(part.args, args, strict=True)
    x, y = (f"({a})" if isinstance(p, Expr) and " " in a and a[0] != "(" else a for p, a in pairs)
    return f"({x} {SIGNS[part.op]} {y})"


def part_hint(part: Any) -> Any:
    """Give the hint of an operand."""
    return part.hint if isinstance(part, (Expr, FloatExpr)) else part


def below(root: FloatExpr) -> list[FloatExpr]:
    """Give a float expression and those in it, operands first."""
    seen, todo = {root}, [root]
    while todo:
        new = {a for a in todo.pop().args if isinstance(a, FloatExpr)} - seen
        seen |= new
        todo += new
    return sorted(seen, key=lambda f: f.number)


def rebuild_float(root: FloatExpr, leaf: Callable[[str], Any], const: Const, apply: Apply) -> Any:
    """Compute a float expression in another world, each shared part once."""
    values: dict[Any, Any] = {}

    def value(part: Any) -> Any:
        if isinstance(part, Expr):
            return part.rebuild(leaf, const, apply)
        return values[part] if isinstance(part, FloatExpr) else const(part)

    for part in below(root):
        values[part] = apply(part.op, *[value(a) for a in part.args])
    return values[root]


class FloatPool:
    """The float expressions of one environment."""

    def __init__(self) -> None:
        self.table: dict[tuple[Any, ...], FloatExpr] = {}

    def make(self, op: str, args: tuple[Any, ...]) -> FloatExpr:
        """Give the one expression of these parts."""
        # By class and spelling: 2, 2.0 and True are equal, as 0.0 and -0.0 are.
        key = (op, *((type(a), a if hasattr(a, "hint") else repr(a)) for a in args))
        if key not in self.table:
            return self.table.setdefault(key, FloatExpr(len(self.table), op, args))
        return self.table[key]
