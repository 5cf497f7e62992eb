"""Operators whose results have sizes that depend on data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.errors import OpCheckError
from polyop.library import CustomOpDef, custom_op, get_ctx, opcheck

LAW = "test_aot_dispatch_dynamic"
Backward = Callable[[Any, Tensor], Tensor]


def positive(name: str, backward: Backward | None = None, **bounds: int) -> CustomOpDef:
    """Make an operator that picks the positive elements."""

    def kernel(x: Tensor) -> Tensor:
        data = x.numpy()
        return polyop.from_numpy(data[data > 0])

    op = custom_op(f"dynamicsizes::{name}", kernel, mutates_args=())
    op.register_fake(lambda x: x.new_empty((get_ctx().new_dynamic_size(**bounds),)))
    if backward is not None:
        op.register_autograd(
            backward,
            setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
        )
    return op


def by_operator(ctx: Any, g: Tensor) -> Tensor:
    return spread(ctx.saved_tensors[0], g)


def by_index(ctx: Any, g: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return polyop.zeros_like(x).index_put((polyop.argwhere(x > 0)[:, 0],), g)


@custom_op("dynamicsizes::spread", mutates_args=())
def spread(x: Tensor, g: Tensor) -> Tensor:
    made = np.zeros_like(x.numpy())
    made[x.numpy() > 0] = g.numpy()
    return polyop.from_numpy(made)


spread.register_fake(lambda x, g: polyop.empty_like(x))


@pytest.mark.parametrize("backward", [by_operator, by_index])
def test_a_right_gradient_of_a_result_of_unknown_size(backward: Backward) -> None:
    """S204: the weights of such a result have its size, whatever that is."""
    op = positive(f"right_{backward.__name__}", backward)
    x = polyop.tensor([1.0, -1.0, 2.0, 3.0], requires_grad=True)
    assert opcheck(op, (x,), test_utils=LAW) == {LAW: "SUCCESS"}


def test_a_gradient_that_a_trace_fixes() -> None:
    """S204: where the backward looks around itself, the program is another one."""
    calls: list[int] = []

    def backward(ctx: Any, g: Tensor) -> Tensor:
        calls.append(1)
        return spread(ctx.saved_tensors[0], g * (2 if len(calls) % 2 else 1))

    op = positive("moody", backward)
    x = polyop.tensor([1.0, -1.0, 2.0, 3.0], requires_grad=True)
    with pytest.raises(OpCheckError):
        opcheck(op, (x,), test_utils=LAW)


def test_a_size_outside_of_its_range() -> None:
    """S204: what is wrong is the range that the rule declares, and nothing about shapes."""
    op = positive("some", min=1)
    with pytest.raises(OpCheckError, match=r"(?s)range of a size.*new_dynamic_size\(min"):
        opcheck(op, (polyop.tensor([1.0, -1.0, 2.0]),), test_utils="test_faketensor")
