"""Choices: what a compiler may leave out of a loop, because it is chosen nowhere.

NumPy computes both sides of a choice whole, and warns of what it meets there. A compiler computes
what is chosen, and raises no flags for the rest: nobody would hear that NumPy has to speak.

NOTE [Kept]
The groups of a graph have such choices wherever their author likes. What a compiler could leave
out there, it has to keep: the bits of these values are put into one, which nobody reads. And with a
constant that is chosen, as in `1 / where(c, 0, x)`, it could compute beforehand: where that raises
a flag it is not told what the number is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from polyop.compile.fused.formula import Formula
from polyop.compile.fused.formulas import FUNCTIONS, KINDS
from polyop.compile.fused.symbols import Step, Symbol

#: Steps that raise no flags.
QUIET = {
    "cast", "where", np.negative, np.positive, np.absolute, np.copysign, np.sign, np.maximum,
    np.minimum, np.floor, np.ceil, np.trunc, np.rint, np.conjugate,
}  # fmt: skip
#: Of more combinations of constants it is not looked which raise flags.
MOST = 64
#: Steps that choose one of their operands, or a part of it.
CHOOSING = {"where", np.maximum, np.minimum, np.copysign}
#: Steps whose result has no bits without the bits of all operands. Not so comparisons: a square is
#: never less than zero.
THOROUGH = {
    "cast", np.add, np.subtract, np.multiply, np.divide, np.negative, np.positive, np.conjugate,
    np.absolute, np.square, np.reciprocal, np.sqrt, np.floor, np.ceil, np.trunc, np.rint,
    *FUNCTIONS,
} - {np.power}  # fmt: skip


def unheard(members: Mapping[Any, Formula], outputs: Collection[Any]) -> set[int]:
    """Give the symbols, by `id`, that a compiler may not compute though they may raise flags.

    Args:
        members: by key, what a loop computes, in order.
        outputs: the keys of its results.
    """
    sure = {id(members[key].result) for key in outputs}
    found: set[int] = set()
    for formula in reversed(members.values()):  # type: ignore[call-overload]
        for step in reversed(formula.steps):
            if id(step.result) not in sure and _is_loud(step):
                found.add(id(step.result))
                sure.add(id(step.result))
            if id(step.result) in sure:
                sure.update(map(id, _surely_read(step)))
        given = formula.inputs.items()
        sure |= {id(members[k].result) for k, x in given if k in members and id(x) in sure}
    return found


Constants = set[Any]


def folds_loudly(members: Mapping[Any, Formula]) -> bool:
    """Tell whether a step raises a flag for constants alone, which a compiler knows."""
    known: dict[int, Constants] = {}
    for formula in members.values():
        for key, symbol in formula.inputs.items():
            if key in members:
                known[id(symbol)] = known[id(members[key].result)]
        for step in formula.steps:
            given = [known.get(id(x), set()) if isinstance(x, Symbol) else {x}
                     for x in step.operands]  # fmt: skip
            try:
                with np.errstate(all="raise"):
                    known[id(step.result)] = _constants(step, given)
            except FloatingPointError:
                return True
    return False


def _constants(step: Step, given: Sequence[Constants]) -> Constants:
    """Give the constants that the result may be, as far as choices are of any.

    Raises:
        FloatingPointError: to compute one raises a flag.
    """
    dtype = step.result.dtype.type
    if step.what in CHOOSING:
        values = {dtype(x) for x in set().union(*(given[1:] if step.what == "where" else given))}
        return {s * x for x in values for s in (1, -1)} if step.what is np.copysign else values
    if step.what is np.sign:
        return {dtype(0), dtype(1), dtype(-1)} if KINDS[step.result.dtype] == "f" else set()
    if step.what == "cast":
        return {dtype(x) for x in given[0]}
    if prod(map(len, given)) > MOST:
        raise FloatingPointError
    assert step.loop is not None
    return {step.what(*map(step.loop.type, row)) for row in product(*given)}


def _is_loud(step: Step) -> bool:
    """Tell whether a step may raise a flag."""
    kind = KINDS[step.result.dtype]
    if step.what == "cast":  # to fewer bits
        (given,) = step.operands
        return kind == "f" and KINDS[given.dtype] == "f" and given.dtype > step.result.dtype
    return kind == "f" and step.what not in QUIET


def _surely_read(step: Step) -> Sequence[Any]:
    """Give the operands without which there is no result."""
    if step.what in CHOOSING:
        return step.operands[:1]
    return step.operands if step.what in THOROUGH and KINDS[step.result.dtype] == "f" else ()


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
