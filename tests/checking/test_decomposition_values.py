"""The law of decompositions at values that samples seldom hold (S206)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.checking.test_gradient_corners import breaks, define

import polyop as p
from polyop.checking.law import LAWS, Case, judge
from polyop.checking.sample import sample_of
from polyop.tensor.tensor import Tensor, of_array

LAW = "test_decomposition"


def x() -> Tensor:
    return of_array(np.random.default_rng(0).normal(size=(2, 3)))


def composed(kernel: Callable[[Any], Any], rule: Callable[[Tensor], Any]) -> Any:
    def run(x: Tensor) -> Tensor:
        if x.dtype.kind != "f":
            raise TypeError("floats only")
        return of_array(np.asarray(kernel(x.numpy()), x.dtype))

    op = define(run)
    op.register_decomposition(rule)
    return op


def note_of(op: Any) -> str:
    case = Case(op._opoverload, sample_of(op._opoverload, (x(),), {}))
    verdict = judge(LAWS[LAW], case)
    assert verdict.kind == "holds", verdict
    return verdict.reason


def zero_or(x: Tensor) -> Tensor:
    return p.where(x > 0, x, 0.0)


WRONG: dict[str, tuple[Callable[[Any], Any], Callable[[Tensor], Any]]] = {
    "0 in x": (np.sign, lambda x: p.where(x > 0, 1 + 0 * x, -1 + 0 * x)),
    "0.5 in x": (np.round, lambda x: p.floor(x + 0.5)),
    "-10000 in x": (np.abs, lambda x: p.maximum(x, p.minimum(-x, 1e3 + 0 * x))),
    "nan in x": (lambda a: np.maximum(a, 0), zero_or),
    "inf in x": (lambda a: a * 1, lambda x: p.minimum(x, 1e9 + 0 * x)),
}


@pytest.mark.parametrize("at", WRONG)
def test_special_values(at: str) -> None:
    """S206: a decomposition that differs where samples seldom look breaks the law."""
    breaks(f"differs from the kernel's at {at}", composed(*WRONG[at]), x(), law=LAW)


def test_what_overflows_on_the_way() -> None:
    """S206: so does one whose steps overflow where the kernel's do not."""

    def steps(x: Tensor) -> Tensor:
        return p.log(1 + p.exp(x))

    op = composed(lambda a: np.logaddexp(0, a), steps)
    breaks("at 10000 in x", op, x(), law=LAW)


def test_a_right_decomposition_at_special_values() -> None:
    """S206: nan equals nan there, and an infinity itself."""
    assert note_of(composed(lambda a: np.exp(a) * 2, lambda x: p.exp(x) + p.exp(x))) == ""


def test_the_sign_of_zero_is_a_note() -> None:
    """S206: a zero of another sign is no other number, but it is told."""
    assert "another sign of zero" in note_of(composed(lambda a: a * 1, lambda x: x + 0.0))
