"""What `help` says of operators and methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop
from polyop.dispatch.late_operators import LATE_OPERATORS
from polyop.ops import texts
from polyop.ops.define import ON_TENSORS

#: Values that are no functions, whose class speaks for them.
VALUES = {"bfloat16", "float8_e4m3fn", "float8_e5m2", "newaxis"}
SPACES = {"": polyop, "fft.": polyop.fft, "linalg.": polyop.linalg}


@pytest.mark.parametrize("place", SPACES, ids=["polyop", "fft", "linalg"])
def test_each_public_name_has_a_text(place: str) -> None:
    """S200: `help` says of each public name what it is."""
    space = SPACES[place]
    bare = {n for n in space.__all__ if not getattr(getattr(space, n), "__doc__", None)}
    assert bare <= VALUES


def test_each_method_has_a_text() -> None:
    """S200: so does each attribute of a tensor; its fields are told by the class."""
    names = [n for n in dir(polyop.Tensor) if not n.startswith("_")]
    bare = {n for n in names if not getattr(polyop.Tensor, n).__doc__}
    assert bare == {n for n in bare if f"    {n}: " in (polyop.Tensor.__doc__ or "")}
    assert (polyop.Tensor.sin.__doc__ or "").startswith("Give the sine")
    assert "`sin`" in (polyop.Tensor.sin_.__doc__ or "")


def test_each_text_is_of_an_operator() -> None:
    """S200: no text is left of an operator that is gone, and none comes twice."""
    known = {*ON_TENSORS, *[name.removeprefix("core::") for name in LATE_OPERATORS]}
    assert set(texts.TEXTS) <= known
    names = [name for family in texts.FAMILIES.values() for name in family]
    assert len(names) == len(set(names))


def _called(name: str) -> Any:
    op = getattr(polyop.ops.core, name).default
    x = polyop.asarray(np.ones((2, 3), "int32"))
    tensors = [a for a in op._schema.arguments if str(a.type) == "Tensor"]
    with np.errstate(all="ignore"):
        return op(*[x for _ in tensors])


RESULTS = {texts.FLOATING: "fc", texts.SAME: "i", texts.BOOLS: "b", texts.BOTH_BOOLS: "b"}
ELEMENTWISE = [(n, kinds) for last, kinds in RESULTS.items() for n in texts.FAMILIES[last]]


@pytest.mark.parametrize(("name", "kinds"), ELEMENTWISE, ids=[n for n, _ in ELEMENTWISE])
def test_the_text_of_a_family_is_true(name: str, kinds: str) -> None:
    """S200: shape and dtype of the result, of integers, are what the family's sentence says."""
    made = _called(name)
    assert made.shape == (2, 3) and made.dtype.kind in kinds
