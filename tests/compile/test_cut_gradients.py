"""Gradients that begin inside of a compiled function that runs in parts (S212)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop

X = polyop.tensor([0.3, 0.4], dtype="float64")


def in_place(z: Any, q: Any) -> Any:
    return z.sin_()


def twice(z: Any, q: Any) -> Any:
    return z.mul_(q).exp_()


def part(z: Any, q: Any) -> Any:
    z[0].mul_(3.0)
    return z


def row(z: Any, q: Any) -> Any:
    z[:1].mul_(q[1:])
    return z.mul_(q)


def set_item(z: Any, q: Any) -> Any:
    z[0] = q[1].sin()
    return z


@pytest.mark.parametrize("write", [in_place, twice, part, row, set_item])
def test_writes_behind_a_look(write: Callable[..., Any]) -> None:
    """S212: a write in a part keeps what its gradient needs, and reaches the base of a view."""

    def f(x: Any) -> Any:
        k = x.sum().item()
        q = x.detach().clone().requires_grad_()
        out = write(q * 1.0, q)
        return polyop.autograd.grad(out.sum(), q)[0] * k

    np.testing.assert_allclose(polyop.compile(f)(X).numpy(), f(X).numpy())


def test_a_result_without_history_when_it_is_made_again() -> None:
    """S212: a gradient that has a gradient is absent where nothing leads to the input."""

    def f(a: Any, b: Any) -> Any:
        none = polyop.map(lambda v: b[0] * 1.0, polyop.zeros((0, 2), dtype="float64"))
        return none.sum() + (a.detach() * a).sum()

    b = X.clone().requires_grad_()
    out = polyop.compile(f, fullgraph=True)(X, b)
    (found,) = polyop.autograd.grad(out, [b], create_graph=True, allow_unused=True)
    assert found is None or not found.numpy().any()


def test_a_tensor_from_outside_as_a_result() -> None:
    """S211: beside a result with a gradient it is a constant of the forward half."""
    outside = polyop.tensor([1.0])
    x = polyop.tensor([2.0], requires_grad=True)
    y, given = polyop.compile(lambda x: (x * x, outside), fullgraph=True)(x)
    y.sum().backward()
    assert (given.tolist(), x.grad.tolist()) == ([1.0], [4.0])
