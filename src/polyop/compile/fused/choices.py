"""Choices: what a compiler may leave out of a loop, because it is chosen nowhere.

NumPy computes both sides of a choice whole, and warns of what it meets there. A compiler computes
what is chosen, and raises no flags for the rest: nobody would hear that NumPy has to speak.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from polyop.compile.fused.formula import Formula
from polyop.compile.fused.symbols import Step, Symbol

#: Steps that raise no flags.
QUIET = {
    "cast", "where", np.negative, np.positive, np.absolute, np.copysign, np.sign, np.maximum,
    np.minimum, np.floor, np.ceil, np.trunc, np.rint, np.conjugate,
}  # fmt: skip


def left_out(formula: Formula) -> list[Step]:
    """Give the steps that may raise flags where nothing is chosen of them."""
    made = {id(s.result): s for s in formula.steps}
    read = {id(x) for s in formula.steps for x in _computed_with(s)} | {id(formula.result)}
    found = []
    for choice in (s for s in formula.steps if s.what == "where"):
        for x in choice.operands[1:]:
            step = made.get(id(x))
            loud = step is not None and step.what not in QUIET and id(x) not in read
            if step is not None and loud and not _is_of_zeros(choice, x, made):
                found.append(step)
    return found


def is_half(step: Step) -> bool:
    """Tell whether a step halves, which raises no flag but that of underflow."""
    by = step.operands[-1]
    return step.what is np.divide and isinstance(by, np.generic) and bool(by == 2)


def _computed_with(step: Step) -> Sequence[Any]:
    return step.operands[:1] if step.what == "where" else step.operands


Made = dict[int, Step]


def _is_of_zeros(choice: Step, x: Any, made: Made) -> bool:
    """Tell whether sums of products are left out only where all that they are made of is zero."""
    zeros = {id(s) for s in _zeros(choice.operands[0], made)}
    return x is choice.operands[2] and all(id(s) in zeros for s in _terms(x, made))


def _zeros(condition: Any, made: Made) -> Iterator[Any]:
    """Give the symbols that are zero where a condition holds, as far as it says so."""
    step = made.get(id(condition))
    if step is not None and step.what in {np.logical_and, np.bitwise_and}:
        for x in step.operands:
            yield from _zeros(x, made)
    elif step is not None and step.what is np.equal:
        a, b = step.operands
        if not isinstance(b, Symbol) and b == 0:
            yield a


def _terms(x: Any, made: Made) -> Iterator[Any]:
    """Give what sums of products are made of."""
    step = made.get(id(x))
    if step is not None and step.what in {np.add, np.multiply}:
        for operand in step.operands:
            yield from _terms(operand, made)
    else:
        yield x
