"""`Function`s in programs from before dispatch: their operators have gradients (S114, S209)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, func
from polyop.graph import make_fx

X = polyop.tensor([0.3, 0.7], dtype=polyop.float64)


class Scaled(polyop.autograd.Function):
    """Multiply by the sine."""

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return x.sin() * w

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return g * x.cos() * w, g * x.sin()


class Nested(polyop.autograd.Function):
    """Call another one, and switch grad mode inside."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        with polyop.enable_grad():
            return Scaled.apply(x, x) * 1

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * (x.cos() * x + x.sin())


PROGRAMS = {
    "one": lambda x: Scaled.apply(x, x).sum(),
    "nested": lambda x: Nested.apply(x).sum(),
    "around": lambda x: (Scaled.apply(x * 2, x) * x).sum(),
}


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_has_the_gradient_of_its_operators(name: str, mode: Any) -> None:
    """The grad mode that a `Function` switches off is no part of the program."""
    f = PROGRAMS[name]
    program = make_fx(f, mode, pre_dispatch=True)(X)
    assert not [n for n in program.graph.nodes if "set_grad_mode" in str(n.target)]
    np.testing.assert_allclose(func.grad(program)(X).numpy(), func.grad(f)(X).numpy())
    plain = make_fx(f, mode)(X)
    np.testing.assert_allclose(func.hessian(program)(X).numpy(), func.hessian(plain)(X).numpy())


def test_no_grad_around_a_function_is_part_of_the_program() -> None:
    """What the program itself switches off stays off."""

    def f(x: Tensor) -> Tensor:
        with polyop.no_grad():
            y = Scaled.apply(x, x)
        return (y * x).sum()

    program = make_fx(f, "fake", pre_dispatch=True)(X)
    np.testing.assert_allclose(func.grad(program)(X).numpy(), func.grad(f)(X).numpy())
