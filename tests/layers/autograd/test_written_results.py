"""A result may be written wherever PyTorch lets it: gradients save no result without need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import polyop

rng = np.random.default_rng(0)
A, B = rng.uniform(0.2, 0.8, (2, 3, 3))
ONE = (
    "abs acos asin atan asinh atanh ceil cos cosh exp expm1 floor log log1p log2 log10 reciprocal "
    "round rsqrt sign sin sinh sqrt square tan tanh trunc sum mean"
).split()
TWO = (
    "add subtract multiply divide pow atan2 maximum minimum hypot logaddexp copysign remainder "
    "matmul"
).split()
MORE: dict[str, Callable[[Any], Any]] = {
    "number / x": lambda x: 2.0 / x,
    "x / number": lambda x: x / 2.0,
    "number ** x": lambda x: 2.0**x,
    "x ** number": lambda x: x**3,
    "x % number": lambda x: x % 0.3,
    "mask": lambda x: x[x > 0.5],
    "std": lambda x: x.std(-1),
}


def _written(inputs: list[Any], of: tuple[int, ...], fn: Callable[..., Any]) -> Any:
    """Give the gradients through a result that was doubled in place, or None if that is refused."""
    for i in of:
        inputs[i].requires_grad_()
    try:
        result = fn(*inputs)
        result.mul_(2)
        result.sum().backward()
    except RuntimeError:
        return None
    return [np.array(inputs[i].grad.tolist()) for i in of]


def _compare(arrays: list[Any], of: tuple[int, ...], ours: Any, theirs: Any) -> None:
    wanted = _written([torch.tensor(a) for a in arrays], of, theirs)
    found = _written([polyop.from_numpy(a.copy()) for a in arrays], of, ours)
    if wanted is None:
        return  # saving less than PyTorch is no fault
    assert found is not None, "PyTorch lets this result be written"
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ONE)
def test_of_one(name: str) -> None:
    """S125: a write to a result is a fault only where the gradient needs the result."""
    _compare([A], (0,), getattr(polyop, name), getattr(torch, name))


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("of", [(0,), (1,), (0, 1)])
def test_of_two(name: str, of: tuple[int, ...]) -> None:
    """S125: for each of two arguments, and for both."""
    _compare([A, B], of, getattr(polyop, name), getattr(torch, name))


@pytest.mark.parametrize("name", MORE)
def test_of_operators(name: str) -> None:
    """S125: beside numbers, and of what Python's operators do."""
    _compare([A], (0,), MORE[name], MORE[name])


def test_a_needed_result_is_still_guarded() -> None:
    """S125: the gradient of `exp` is its result, so a write to that is refused."""
    x = polyop.ones(3, requires_grad=True)
    y = x.exp()
    y.mul_(2)
    with pytest.raises(polyop.errors.AutogradError, match="was written after it was saved"):
        y.sum().backward()
