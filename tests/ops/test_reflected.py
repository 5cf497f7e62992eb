"""Python's operators with a second operand that is no array: its own method answers."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.errors import ArgumentError, IntegerRangeError

ARITHMETIC = [
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor",
    "lshift", "rshift",
]  # fmt: skip
TURNED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}
NAMES = {name: f"__r{name}__" for name in ARITHMETIC} | {
    name: f"__{other}__" for name, other in TURNED.items()
}


class Unit:
    """Like a unit or a labelled array: it answers by its reflected methods."""

    __array_ufunc__ = None
    dtype = "float64"


class Silent:
    """It has a reflected method, and no answer."""

    def __rmul__(self, other: object) -> Any:
        return NotImplemented


for _name in set(NAMES.values()):
    setattr(Unit, _name, lambda self, other, name=_name: (name, other))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_an_unknown_operand_answers(name: str, library: str) -> None:
    """S66: an operand of an unknown class is asked by its reflected method, as NumPy does."""
    x = polyop.asarray([1, 2])
    if library == "torch":
        x = polyop.from_array(pytest.importorskip("torch").tensor([1, 2]))
    act = getattr(operator, f"{name}_" if name in {"and", "or"} else name)
    answer = act(x, Unit())
    assert answer[0] == NAMES[name] and answer[1] is x
    assert act(np.ones(2), Unit())[0] == NAMES[name]


@pytest.mark.parametrize("other", [Silent(), "x", [1, 2], None, object()])
def test_without_an_answer_the_error_is_ours(other: Any) -> None:
    """S63: an operand that nobody knows is refused by name; a list does not repeat itself."""
    with pytest.raises(ArgumentError, match="core::multiply cannot take"):
        polyop.ones(2) * other
    with pytest.raises(ArgumentError, match="core::multiply_ cannot take"):
        x = polyop.ones(2)
        x *= other


def test_known_operands_are_refused_for_their_values() -> None:
    """S63: a number, a tensor and an array that do not fit are not asked."""
    x = polyop.ones(2)
    with pytest.raises(IntegerRangeError):
        x + 10**40
    for other in (polyop.ones(3), np.ones(3)):
        for act in (operator.mul, operator.lt, operator.eq):
            with pytest.raises(ValueError, match="broadcast"):
                act(x, other)
