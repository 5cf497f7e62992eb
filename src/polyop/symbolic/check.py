"""What programs write about symbolic sizes: checks, questions, extremes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyop.errors import UsageError, UsageTypeError
from polyop.symbolic.sym import Number, SymBool

#: By the class of another library's conditions on sizes: what requires one.
CHECKS: dict[type, Callable[[Any, str | Callable[[], str]], None]] = {}


def check(cond: Any, message: str | Callable[[], str] = "") -> None:
    """Require a condition; of a size that depends on data, at run time (S152).

    What follows may rely on it: a branch that it answers is free.

    Args:
        cond: a condition on sizes, or a plain bool.
        message: what to say when it does not hold, or a function that gives it.

    Raises:
        UsageError: if it is known not to hold.

    Example:
        >>> from polyop.symbolic import ShapeEnv
        >>> count = ShapeEnv().create_unbacked()
        >>> check(count > 0)
        >>> bool(count == 0)
        False
    """
    foreign = CHECKS.get(cond.__class__)
    if foreign is not None:
        foreign(cond, message)
        return
    if not isinstance(cond, (bool, SymBool)):
        raise UsageTypeError(
            "a check takes a condition", argument="cond", seen=f"{type(cond).__name__} {cond}"
        )
    if not holds(cond, message):
        raise UsageError(spell(message) or f"{cond} does not hold", seen=cond)


def holds(cond: bool | SymBool, message: str | Callable[[], str]) -> bool:
    """Tell whether a condition holds, by assuming it where only a run can tell."""
    if isinstance(cond, bool):
        return cond
    known = cond.env.decide(cond.condition)
    if known is None and cond.env.is_unbacked(cond.condition):
        cond.env.assume(cond.condition, spell(message))
        return True
    return bool(cond) if known is None else known


def spell(message: str | Callable[[], str]) -> str:
    """Give the text of a message."""
    return message() if callable(message) else message


def statically_known_true(cond: Any) -> bool:
    """Tell whether a condition is known to hold, without ever guarding."""
    if isinstance(cond, SymBool):
        return cond.env.decide(cond.condition) is True
    return bool(cond)


def sym_max(x: Any, y: Any, *rest: Any) -> Any:
    """Give the greatest number, without asking which one it is."""
    return fold("max", (x, y, *rest))


def sym_min(x: Any, y: Any, *rest: Any) -> Any:
    """Give the least number, without asking which one it is."""
    return fold("min", (x, y, *rest))


FOLDS: dict[str, Any] = {"max": max, "min": min}
#: The same of another library's sizes, by their class.
FOREIGN_FOLDS: dict[type, dict[str, Any]] = {}


def fold(op: str, values: tuple[Any, ...]) -> Any:
    """Apply an operation of two operands to many."""
    out = values[0]
    for value in values[1:]:
        env = next((v.env for v in (out, value) if isinstance(v, Number)), None)
        folds = FOREIGN_FOLDS.get(out.__class__) or FOREIGN_FOLDS.get(value.__class__) or FOLDS
        out = env.operate(op, out, value) if env else folds[op](out, value)
    return out


def is_symbolic(x: object) -> bool:
    """Tell whether a value is a symbolic number or condition."""
    return isinstance(x, (Number, SymBool))


def hint_of(x: Any) -> Any:
    """Give the value in the captured call: of a plain value itself, None where data decides."""
    return x.hint if isinstance(x, (Number, SymBool)) else x
