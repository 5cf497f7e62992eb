"""The law of gradients of gradients: for what comes in, of both signs, and forward (S206)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.checking.test_gradient_corners import breaks, define, holds, save_inputs, values

import polyop as p
from polyop.tensor.tensor import Tensor, of_array

LAW = "test_second_order"


def cube(x: Tensor) -> Tensor:
    return of_array(x.numpy() ** 3)


def cube_backward(ctx: Any, g: Tensor) -> Tensor:
    return g * 3 * ctx.saved_tensors[0] ** 2


def test_the_incoming_gradient_has_a_derivative_too() -> None:
    """S206: a gradient that hides that it depends on the incoming one breaks the law."""

    def detached(ctx: Any, g: Tensor) -> Tensor:
        return cube_backward(ctx, g.detach())

    x = of_array(np.array([1.0, 2.0])).requires_grad_()

    def second(op: Any) -> Any:
        (g,) = p.autograd.grad([(op(x) ** 2).sum()], [x], create_graph=True)
        return p.autograd.grad([g.sum()], [x])[0].tolist()

    right, wrong = (define(cube, rule, save_inputs) for rule in (cube_backward, detached))
    assert (second(right), second(wrong)) == ([30.0, 480.0], [12.0, 192.0])
    holds(right, values(2, 3), law=LAW)
    breaks("for the incoming gradient is wrong", wrong, values(2, 3), law=LAW)


def test_a_linear_operator_has_one_too() -> None:
    """S206: so does one whose gradient depends on nothing else."""

    def twice(x: Tensor) -> Tensor:
        return of_array(x.numpy() * 2)

    lost = define(twice, lambda ctx, g: of_array(g.numpy(force=True) * 2))
    breaks("for the incoming gradient is wrong", lost, values(3), law=LAW)
    holds(define(twice, lambda ctx, g: g * 2), values(3), law=LAW)
    # What raises is not silent.
    holds(define(twice, lambda ctx, g: of_array(g.numpy() * 2)), values(3), law=LAW)


def test_the_second_gradient_of_the_other_sign() -> None:
    """S206: a gradient that is a constant for negative arguments breaks the law."""

    def kernel(x: Tensor) -> Tensor:
        return of_array(np.abs(x.numpy()) ** 1.5)

    def rule(x: Tensor, negative: Tensor) -> Tensor:
        return 1.5 * p.where(x > 0, p.abs(x) ** 0.5, -(p.abs(negative) ** 0.5))

    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * rule(ctx.saved_tensors[0], ctx.saved_tensors[0])

    def loses(ctx: Any, g: Tensor) -> Tensor:
        return g * rule(ctx.saved_tensors[0], ctx.saved_tensors[0].detach())

    holds(define(kernel, backward, save_inputs), values(2, 3), law=LAW)
    wrong = define(kernel, loses, save_inputs)
    breaks("second gradient(.|\n)*with the other sign", wrong, values(2, 3), law=LAW)


@pytest.mark.parametrize("lost", ["nothing", "the argument", "the tangent"])
def test_a_jvp_of_a_jvp(lost: str) -> None:
    """S132, S206: a `jvp` whose own derivative is lost breaks the law."""

    def jvp(ctx: Any, t: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        x = x.detach() if lost == "the argument" else x
        return (t.detach() if lost == "the tangent" else t) * 3 * x**2

    op = define(cube, cube_backward, save_inputs, jvp)
    one = of_array(np.ones(1))
    jacfwd = p.func.jacfwd
    told = jacfwd(jacfwd(lambda x: op(x * x).sum()))(one).item()
    if lost == "nothing":
        assert told == 30.0  # of x**6
        holds(op, values(2, 3), law=LAW)
    else:
        assert told != 30.0
        breaks("second forward derivative", op, values(2, 3), law=LAW)
    holds(op, values(2, 3), law="test_gradient")


@pytest.mark.parametrize("initial", [False, True])
def test_the_running_product_has_one(initial: bool) -> None:
    """S133: the gradient of a running product has a derivative for the incoming gradient."""

    def total(x: Any) -> Any:
        return np.cumprod(x, 1).sum() + (2 if initial else 0)

    x = values(2, 3)
    result = p.cumulative_prod(x, axis=1, include_initial=initial)
    ones = p.ones(*result.shape, dtype=p.float64).requires_grad_()
    (g,) = p.autograd.grad([result], [x], [ones], create_graph=True)
    (found,) = p.autograd.grad([g.sum()], [ones])
    array = x.detach().numpy()
    wanted = (total(array + 1e-6) - total(array - 1e-6)) / 2e-6
    np.testing.assert_allclose(found.sum().item(), wanted, rtol=1e-6)
