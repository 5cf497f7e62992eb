"""The forward half of the law of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyop.checking import opcheck
from polyop.dispatch.custom_op import custom_op
from polyop.errors import OpCheckError
from polyop.tensor.tensor import Tensor, of_array


def cube(name: str, jvp: Any, *, with_backward: bool) -> Any:
    """Define an operator `k x**3` with a `jvp`."""

    @custom_op(f"forward_law::{name}", mutates_args=())
    def op(x: Tensor, k: float = 2.0) -> Tensor:
        return of_array(k * x.numpy() ** 3)

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.k = inputs[1]

    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return g * x * x * (3 * ctx.k), None

    op.register_fake(lambda x, k=2.0: x.new_empty(x.shape))
    if with_backward:
        op.register_autograd(backward, setup_context=setup)
    op.register_jvp(jvp)
    return op


def right(ctx: Any, t: Tensor, k: Any) -> Tensor:
    """Give the tangent."""
    (x,) = ctx.saved_tensors
    return t * x * x * (3 * ctx.k)


GIVEN = (of_array(np.array([0.5, -1.0, 2.0])),)


def test_a_right_jvp_passes() -> None:
    """S132: a `jvp` that is the derivative keeps the law of gradients."""
    op = cube("right", right, with_backward=True)
    assert opcheck(op, GIVEN, test_utils="test_gradient") == {"test_gradient": "SUCCESS"}


WRONG = {
    "a factor": lambda ctx, t, k: right(ctx, t, k) * 2,
    "zero": lambda ctx, t, k: t * 0,
    "nothing": lambda ctx, t, k: None,
    "the place": lambda ctx, t, k: right(ctx, t[[1, 0, 2]], k),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_jvp_is_told(name: str) -> None:
    """S132: a wrong `jvp` breaks the law, though the backward is right; its line is named."""
    op = cube("wrong_" + name.replace(" ", "_"), WRONG[name], with_backward=True)
    with pytest.raises(OpCheckError, match="forward derivative of .* 'x' is wrong") as error:
        opcheck(op, GIVEN, test_utils="test_gradient")
    assert "test_forward_law.py" in str(error.value)


def test_a_jvp_alone_is_checked() -> None:
    """S132: a `jvp` without a backward is held to the law as well."""
    op = cube("alone", lambda ctx, t, k: t * 0, with_backward=False)
    with pytest.raises(OpCheckError, match="forward derivative"):
        opcheck(op, GIVEN, test_utils="test_gradient")


def product(name: str, jvp: Any) -> Any:
    """Define `x y` with a `jvp`."""

    @custom_op(f"forward_law::{name}", mutates_args=())
    def op(x: Tensor, y: Tensor) -> Tensor:
        return of_array(x.numpy() * y.numpy())

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, g: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return g * y, g * x

    op.register_fake(lambda x, y: x.new_empty(x.shape))
    op.register_autograd(backward, setup_context=setup)
    op.register_jvp(jvp)
    return op


def product_rule(ctx: Any, t: Tensor | None, u: Tensor | None) -> Any:
    """Give the tangent of a product."""
    x, y = ctx.saved_tensors
    if t is None or u is None:
        return u * x if t is None else t * y
    return t * y + u * x


def forgets_the_second(ctx: Any, t: Tensor | None, u: Tensor | None) -> Any:
    """Give the tangent of a product for one moving factor."""
    return product_rule(ctx, t, None if t is not None else u)


def test_tangents_are_given_together() -> None:
    """S132: a `jvp` that is right for each tangent alone must be so for all at once."""
    given = GIVEN * 2
    right_one = product("product", product_rule)
    assert opcheck(right_one, given, test_utils="test_gradient") == {"test_gradient": "SUCCESS"}
    with pytest.raises(OpCheckError, match="for 'x' and 'y' together is wrong"):
        opcheck(product("forgets", forgets_the_second), given, test_utils="test_gradient")
