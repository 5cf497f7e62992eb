"""The laws of what a backward does with the gradients that it is given (S128, S206)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest

import polyop as p
from polyop.checking import opcheck
from polyop.dispatch.custom_op import custom_op
from polyop.errors import AutogradError, OpCheckError
from polyop.tensor.tensor import Tensor, of_array

_number = count()
SUCCESS = {"test_gradient": "SUCCESS"}


def values(dtype: str = "float64") -> Tensor:
    return of_array(np.array([0.5, -1.0, 2.0], dtype))


def twice(backward: Callable[[Any, Tensor], Any]) -> Any:
    """Define an operator `2 x` with a backward."""

    @custom_op(f"backward_law::twice{next(_number)}", mutates_args=())
    def op(x: Tensor) -> Tensor:
        return of_array(x.numpy() * x.numpy().dtype.type(2))

    op.register_fake(lambda x: x.new_empty(x.shape))
    op.register_autograd(backward)
    return op


def both(backward: Callable[..., Any], *, materialize: bool) -> Any:
    """Define an operator that gives `x y` and `x + y`, with a backward."""

    @custom_op(f"backward_law::both{next(_number)}", mutates_args=())
    def op(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return of_array(x.numpy() * y.numpy()), of_array(x.numpy() + y.numpy())

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(materialize)

    op.register_fake(lambda x, y: (x.new_empty(x.shape), x.new_empty(x.shape)))
    op.register_autograd(backward, setup_context=setup)
    return op


# -- linear -------------------------------------------------------------------

NONLINEAR: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "no sign": lambda ctx, g: p.abs(g) * 2,
    "only positive": lambda ctx, g: p.maximum(g, p.zeros_like(g)) * 2,
    "clipped": lambda ctx, g: p.clip(g, -3.0, 3.0) * 2,
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_a_backward_that_is_not_linear_is_told(name: str) -> None:
    """S206: a gradient that is right for some incoming gradients only breaks the law."""
    with pytest.raises(OpCheckError, match="is not linear|is wrong"):
        opcheck(twice(NONLINEAR[name]), (values(),), test_utils="test_gradient")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_linear_backward_passes(dtype: str) -> None:
    """S206: a right gradient keeps the law in each dtype."""
    op = twice(lambda ctx, g: g * 2)
    assert opcheck(op, (values(dtype),), test_utils="test_gradient") == SUCCESS


# -- one result alone ---------------------------------------------------------


def both_backward(ctx: Any, g: Tensor | None, h: Tensor | None) -> Any:
    """Give both gradients, whichever result is used."""
    x, y = ctx.saved_tensors
    dx, dy = (0.0, 0.0) if g is None else (g * y, g * x)
    return (dx, dy) if h is None else (dx + h, dy + h)


def forgets_alone(ctx: Any, g: Tensor | None, h: Tensor | None) -> Any:
    """Give nothing where the first result is not used."""
    return (None, None) if g is None else both_backward(ctx, g, h)


def stumbles_alone(ctx: Any, g: Tensor, h: Tensor) -> Any:
    """Reckon with both results."""
    x, y = ctx.saved_tensors
    return g * y + h, g * x + h


def test_a_result_alone_is_differentiated() -> None:
    """S125: with set_materialize_grads(False), a backward must take None for each result."""
    given = (values(), values())
    check = {"test_utils": "test_gradient"}
    with pytest.raises(OpCheckError, match="each result alone"):
        opcheck(both(forgets_alone, materialize=False), given, **check)
    with pytest.raises(OpCheckError, match="TypeError|None"):
        opcheck(both(stumbles_alone, materialize=False), given, **check)
    assert opcheck(both(both_backward, materialize=False), given, **check) == SUCCESS
    assert opcheck(both(stumbles_alone, materialize=True), given, **check) == SUCCESS


# -- dtypes -------------------------------------------------------------------


@pytest.mark.parametrize(("given", "made"), [("float32", "float64"), ("float64", "float32")])
def test_a_gradient_of_another_dtype_is_told(given: str, made: str) -> None:
    """S128: a gradient of a wrong dtype is cast, and opcheck names argument and dtypes."""
    op = twice(lambda ctx, g: p.astype(g * 2, made))
    x = values(given).requires_grad_()
    op(x).sum().backward()
    assert x.grad is not None and x.grad.dtype == given
    with pytest.raises(OpCheckError, match="wrong dtype for 'x'") as error:
        opcheck(op, (values(given),), test_utils="test_gradient")
    assert isinstance(error.value.__cause__, AutogradError)
    assert f"declared: dtype {given}" in str(error.value)
    assert f"dtype {made}" in str(error.value)


def test_a_gradient_that_loses_precision_at_other_dtypes_is_told() -> None:
    """S128: single precision is told also if the sample has it."""
    op = twice(lambda ctx, g: p.astype(g * 2, "float32"))
    with pytest.raises(OpCheckError, match="wrong dtype"):
        opcheck(op, (values("float32"),), test_utils="test_gradient")


def test_a_call_of_mixed_dtypes_may_give_the_common_one() -> None:
    """S128: where arguments have several dtypes, no dtype of a product is wrong."""

    @custom_op("backward_law::mixed", mutates_args=())
    def op(x: Tensor, y: Tensor) -> Tensor:
        return of_array(x.numpy() * y.numpy())

    op.register_fake(lambda x, y: x * y)
    op.register_autograd(
        lambda ctx, g: (g * ctx.saved_tensors[1], g * ctx.saved_tensors[0]),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )
    given = (values("float32"), values())
    assert opcheck(op, given, test_utils="test_gradient") == SUCCESS
