"""Derivatives of determinants, of any order and of singular matrices too, without a division.

NOTE [Minors]
The determinant is a polynomial that is linear in each row. So all its derivatives
exist, at singular matrices too, where formulas that divide by it, or by singular
values, have none. With `x = U S V^H` it is `det(U) det(S) det(V^H)`, and the
derivative along `k` matrices is that of a diagonal matrix along `U^H a V` of each: a
sum over `k` distinct places on the diagonal, of the minor that the matrices have there
times the product of the singular values elsewhere. It is linear in each matrix, and
does not depend on their order; its gradient is one along `k + 1` matrices. Conjugated
as all gradients are, `cofactors(x, along)` is the gradient by the last of them.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from itertools import combinations, permutations
from typing import Any

Array = Any


def minors(xp: Any, s: Array, along: Sequence[Array], places: Array) -> Array:
    """Give the gradient of the derivative of the determinant of diagonal matrices: NOTE [Minors].

    Args:
        xp: a namespace of the Array API standard.
        s: the diagonals.
        along: the matrices along which the derivative is taken.
        places: the numbers of a diagonal's elements.
    """
    count = len(along) + 1
    weights = _products_without(xp, s, places, count)
    parts = []
    for order in permutations(range(count)):
        odd = len([1 for a, b in combinations(order, 2) if a > b]) % 2
        part = -weights if odd else weights
        for i, matrix in enumerate(along):
            part = part * _at(xp, matrix, i, order[i], count)
        rest = tuple(i - count for i in range(count - 1) if i != order[-1])
        part = xp.sum(part, axis=rest) if rest else part
        parts.append(_on_diagonal(xp, part, places) if order[-1] == count - 1 else part)
    return xp.matrix_transpose(reduce(operator.add, parts))


def _products_without(xp: Any, s: Array, places: Array, count: int) -> Array:
    """Multiply for each choice of so many distinct places all values elsewhere; else give 0."""
    taken = [places[(..., *[None] * (count - 1 - i))] for i in range(count)]
    found = xp.ones_like(s[(..., *[None] * (count - 1))])
    for k in range(int(s.shape[-1])):
        value = s[(..., k, *[None] * count)]
        chosen = reduce(operator.or_, [t == k for t in taken])
        found = found * xp.where(chosen, xp.ones_like(value), value)
    for a, b in combinations(taken, 2):
        found = xp.where(a == b, xp.zeros_like(found), found)
    return found


def _at(xp: Any, matrix: Array, row: int, column: int, count: int) -> Array:
    """Lay matrices along two of so many axes, or their diagonals along one."""
    if row == column:
        matrix = xp.linalg.diagonal(matrix)
    elif row > column:
        matrix = xp.matrix_transpose(matrix)
    return matrix[(..., *[slice(None) if i in {row, column} else None for i in range(count)])]


def _on_diagonal(xp: Any, values: Array, places: Array) -> Array:
    values = values[..., None]
    return xp.where(places == places[:, None], values, xp.zeros_like(values))


__all__ = ["minors"]
