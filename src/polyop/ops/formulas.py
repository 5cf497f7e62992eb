"""Gradients that are longer than a line: functions that texts of gradients call by name.

Each takes the built-in operators as its first argument, those on bare arrays or
those on tensors, so one function is both, as one text is (NOTE [Gradients are text]).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from polyop.ops.define import ON_ARRAYS, ON_TENSORS

Fn = Callable[..., Any]


class Built:
    """The built-in operators of one table, as attributes."""

    def __init__(self, table: dict[str, Fn]) -> None:
        self.table = table

    def __getattr__(self, name: str) -> Fn:
        return self.table[name]


def formula(fn: Fn) -> Fn:
    """Let texts of gradients call a function, which gets the operators first."""
    for table in (ON_ARRAYS, ON_TENSORS):
        table[fn.__name__] = partial(fn, Built(table))
    return fn


# -- what formulas about matrices share -----------------------------------------


def adjoint(of: Built, x: Any) -> Any:
    """Transpose and conjugate matrices."""
    return of.matrix_transpose(of.conj(x))


def off_diagonal(of: Built, x: Any) -> Any:
    """Put zeros on the diagonal of matrices."""
    return of.tril(x, -1) + of.triu(x, 1)


def rows(of: Built, x: Any) -> Any:
    """Spell a vector for each matrix as one row, which scales columns."""
    return of.expand_dims(x, -2)


def column(of: Built, x: Any) -> Any:
    """Spell a vector for each matrix as one column, which scales rows."""
    return of.expand_dims(x, -1)


def apart(of: Built, x: Any, gaps: Any) -> Any:
    """Divide matrices off the diagonal, and put zeros on it; where no gap is, there is no value."""
    ones = of.zero_like(gaps) + 1
    return off_diagonal(of, x) / (off_diagonal(of, gaps) + ones - off_diagonal(of, ones))


def scaled(of: Built, left: Any, values: Any, right: Any) -> Any:
    """Multiply two matrices with a diagonal one between them."""
    return (left * rows(of, values)) @ right


__all__ = ["Built", "adjoint", "apart", "column", "formula", "off_diagonal", "rows", "scaled"]
