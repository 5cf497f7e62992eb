"""A Python number made of a tensor with a derivative is a constant, and says so (S128)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import func
from polyop.errors import GradientWarning

X = polyop.tensor(3.0)
LEAF = polyop.tensor(3.0, requires_grad=True)


def scaled(t: Any) -> Any:
    """Multiply by a number that is the tensor's own value."""
    return t * float(t)


TOLD: dict[str, Callable[[], Any]] = {
    "recorded": lambda: scaled(LEAF),
    "complex": lambda: complex(LEAF),
    "math": lambda: math.sin(LEAF),
    "grad": lambda: func.grad(scaled)(X),
    "grad of grad": lambda: func.grad(func.grad(scaled))(X),
    "jvp": lambda: func.jvp(scaled, (X,), (X,)),
    "linearize": lambda: func.linearize(scaled, X),
    "compiled": lambda: polyop.compile(scaled)(LEAF),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_derivative_that_ends_is_told(name: str) -> None:
    """The warning is at the user's own line."""
    with pytest.warns(GradientWarning, match="gives a constant") as found:
        TOLD[name]()
    assert {w.filename for w in found} == {__file__}


def test_what_is_meant_is_silent() -> None:
    """`.item()`, detached tensors, whole numbers, and blocks without grad."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LEAF.item() == float(LEAF.detach()) == int(LEAF) == 3
        assert f"{LEAF:.1f}" == "3.0"
        with polyop.no_grad():
            assert float(LEAF) == 3.0
        assert func.grad(lambda t: t * t.item())(X).item() == 3.0
        assert func.grad(lambda t: t * float(X))(X).item() == 3.0
        assert polyop.compile(scaled)(X).item() == 9.0
