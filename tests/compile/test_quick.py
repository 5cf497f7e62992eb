"""A program that is found again at once is right for the call, or another is found (SPEC S211)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor

SCALE = 2.0


def fn(x: Tensor, y: Tensor) -> Any:
    """Depends on all that selects programs."""
    z = x * y * SCALE
    if x is y:
        z = z + 1
    if x.shape[0] == 5:
        z = z + 10
    if x.requires_grad and polyop.is_grad_enabled():
        z = z + 100
    if not x.is_contiguous():
        z = z + 1000
    if x.dtype == polyop.float64:
        z = z + 10000
    x.add_(0) if not x.requires_grad else None
    return z


def ones(*shape: int) -> Tensor:
    return polyop.from_numpy(np.arange(1, 1 + int(np.prod(shape)), dtype="f4").reshape(shape))


def pair_of_views() -> tuple[Tensor, Tensor]:
    base = ones(8)
    return base[:4], base[2:6]


KINDS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "plain": lambda: (ones(4), ones(4)),
    "longer": lambda: (ones(5), ones(5)),
    "same": lambda: (ones(4),) * 2,
    "grad": lambda: (ones(4).requires_grad_(), ones(4)),
    "wide": lambda: (ones(4).astype(polyop.float64), ones(4)),
    "strided": lambda: (ones(8)[::2], ones(4)),
    "views": pair_of_views,
    "number": lambda: (ones(4), 3),
    "matrix": lambda: (ones(4, 4), ones(4)),
}


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_calls_in_turn(first: str, second: str) -> None:
    """S211: a call of one kind after a call of another has its own result, with and without
    gradients recorded."""
    compiled = polyop.compile(fn)
    for kind in (first, first, second, second, first):
        made = KINDS[kind]()
        expected, found = fn(*made), compiled(*made)
        assert np.array_equal(found.detach().numpy(), expected.detach().numpy())
        assert found.requires_grad == expected.requires_grad
        with polyop.no_grad():
            assert compiled(*KINDS[kind]()).requires_grad is False


def test_what_the_function_reads(monkeypatch: Any) -> None:
    """S211: a number that the function reads from outside may change between two calls."""
    compiled = polyop.compile(fn)
    x = ones(4)
    for scale in (2.0, 2.0, 3.0, 2.0):
        monkeypatch.setitem(globals(), "SCALE", scale)
        assert np.array_equal(compiled(x, ones(4)).numpy(), fn(ones(4), ones(4)).numpy())


def test_keywords_and_counts() -> None:
    """S211: keywords, and another number of arguments, are another call."""
    compiled = polyop.compile(lambda x, y=1, *rest: x * 2 + y + len(rest))
    x = ones(3)
    for args, kwargs in [((x,), {}), ((x, ones(3)), {}), ((x,), {"y": ones(3)}), ((x, 1, x), {})]:
        for _ in range(2):
            expected = x * 2 + (kwargs or dict(enumerate(args))).get("y" if kwargs else 1, 1)
            expected = expected + max(0, len(args) - 2)
            assert np.array_equal(compiled(*args, **kwargs).numpy(), expected.numpy())


def test_methods() -> None:
    """S211: a compiled method is called on its own object."""

    class Layer:
        def __init__(self, scale: float) -> None:
            self.scale = scale

        @polyop.compile
        def run(self, x: Tensor) -> Tensor:
            return x * self.scale

    a, b = Layer(2.0), Layer(5.0)
    for layer in (a, a, b, a):
        assert float(layer.run(ones(2))[0].item()) == layer.scale
