"""An operator whose gradient is right, and hides that it depends on the argument."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::second_gradient_lost", mutates_args=())
def second_gradient_lost(x: Tensor) -> Tensor:
    return of_array(x.numpy() ** 2)


@second_gradient_lost.register_fake
def second_gradient_lost_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def backward(ctx: Any, g: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return g * x.detach() * 2


second_gradient_lost.register_autograd(backward, setup_context=setup_context)


@second_gradient_lost.samples
def second_gradient_lost_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)).requires_grad_(),)]
