"""Symbolic sizes: integers that a captured program knows by name.

`ShapeEnv` makes them, programs compute with them as with ints, and branches
on them become guards.
"""

from __future__ import annotations

from polyop.symbolic.check import (
    check,
    hint_of,
    is_symbolic,
    statically_known_true,
    sym_max,
    sym_min,
)
from polyop.symbolic.condition import Condition
from polyop.symbolic.env import ShapeEnv
from polyop.symbolic.expr import Expr
from polyop.symbolic.floats import FloatExpr
from polyop.symbolic.guards import Guard
from polyop.symbolic.sym import SymBool, SymFloat, SymInt

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
