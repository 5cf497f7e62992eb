"""Gradients at values of very different sizes, and of functions that turn within a step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.checking.test_hostile import ONE, case_of, define, differentiable

import polyop
from polyop.checking.law import LAWS, judge
from polyop.tensor.tensor import Tensor, of_array

Rule = Callable[[Any], Any]
#: A function on NumPy, and its derivative.
FUNCTIONS: dict[str, tuple[Rule, Rule]] = {
    "tanh": (np.tanh, lambda x: 1 - polyop.tanh(x) ** 2),
    "log1p": (np.log1p, lambda x: 1 / (1 + x)),
    "relu": (lambda a: np.maximum(a, 0), lambda x: polyop.where(x > 0, 1.0, 0.0).to(x.dtype)),
    "reciprocal": (lambda a: 1 / a, lambda x: -1 / (x * x)),
    "fast sine": (lambda a: np.sin(1e3 * a), lambda x: 1e3 * polyop.cos(1e3 * x)),
    "tan": (np.tan, lambda x: 1 + polyop.tan(x) ** 2),
    "square": (np.square, lambda x: 2 * x),
}
VALUES: list[list[float]] = [
    [1e16, 0.5], [1e100, 0.5], [1e300, 0.1], [1e3, 0.5, 30.0], [1e4, 1.0], [1e6, 1.0, 1e-6],
    [1e-12, 1e6], [1e-30, 1e-31], [0.3, 0.7],
]  # fmt: skip
#: Where no difference tells a slope of these.
HOPELESS = {"fast sine": 1e10, "tan": 1e10, "square": 1e150}


def _cases() -> list[Any]:
    pairs = itertools.product(FUNCTIONS, VALUES)
    return [(f, v) for f, v in pairs if max(v) < HOPELESS.get(f, np.inf)]


@pytest.mark.parametrize(("name", "given"), _cases())
@pytest.mark.parametrize("factor", [1.0, 1.01, -1.0])
def test_of_sizes_far_apart(name: str, given: list[float], factor: float) -> None:
    """S204: a right gradient is right at all values, and a wrong one wrong at small ones."""
    fn, slope = FUNCTIONS[name]

    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * slope(ctx.saved_tensors[0]) * factor

    op = differentiable(define(ONE, lambda x: of_array(fn(x.numpy()))), backward)
    sample = case_of(op, of_array(np.array(given)).requires_grad_())
    assert judge(LAWS["test_gradient"], sample).broken == (factor != 1)
