"""Symbolic sizes: integers that a captured program knows by name.

`ShapeEnv` makes them, programs compute with them as with ints, and branches
on them become guards. What makes them is read when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polyop.lazy import lazily
from polyop.symbolic.check import (
    check,
    hint_of,
    is_symbolic,
    statically_known_true,
    sym_max,
    sym_min,
)
from polyop.symbolic.sym import SymBool, SymFloat, SymInt

if TYPE_CHECKING:
    from polyop.symbolic.condition import Condition
    from polyop.symbolic.env import ShapeEnv
    from polyop.symbolic.expr import Expr
    from polyop.symbolic.floats import FloatExpr
    from polyop.symbolic.guards import Guard

__all__ = [
    "Condition",
    "Expr",
    "FloatExpr",
    "Guard",
    "ShapeEnv",
    "SymBool",
    "SymFloat",
    "SymInt",
    "check",
    "hint_of",
    "is_symbolic",
    "statically_known_true",
    "sym_max",
    "sym_min",
]
_PLACES = {
    "Condition": "condition",
    "Expr": "expr",
    "FloatExpr": "floats",
    "Guard": "guards",
    "ShapeEnv": "env",
}
__getattr__, __dir__ = lazily(__name__, {k: f"{__name__}.{v}" for k, v in _PLACES.items()})
