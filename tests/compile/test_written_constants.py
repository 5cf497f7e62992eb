"""Tensors that are no arguments, and are written with what has a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.errors import CaptureError

MADE: dict[str, Callable[[], Tensor]] = {
    "of an array": lambda: polyop.from_numpy(np.ones((3, 2))),
    "of numbers": lambda: polyop.tensor(np.ones((3, 2))),
}


def gradient(f: Any) -> Any:
    x = polyop.from_numpy(np.arange(6.0).reshape(2, 3)).requires_grad_()
    f(x).sum().backward()
    assert x.grad is not None
    return x.grad.tolist()


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("outside", [False, True])
def test_gradients_flow_through_the_write(made: str, outside: bool) -> None:
    """S211: a tensor that is written with an argument gives the argument its gradient."""
    buffers = [MADE[made](), MADE[made]()]

    def f(x: Tensor) -> Tensor:
        b = buffers[-1] if outside else MADE[made]()
        b.copy_(x.mT)
        return b * b

    expected = gradient(f)
    buffers.pop()
    assert gradient(polyop.compile(f)) == expected
    assert buffers[0].requires_grad is outside


def test_a_failed_capture_leaves_no_history() -> None:
    """S211: what a whole capture refuses, it leaves as it was."""
    b, x = MADE["of an array"](), polyop.ones(2, 3, dtype=polyop.float64).requires_grad_()

    def f(x: Tensor) -> Tensor:
        b.copy_(x.mT)
        return b * b

    with pytest.raises(CaptureError, match="writes what has a gradient"):
        polyop.compile(f, fullgraph=True)(x)
    assert not b.requires_grad
