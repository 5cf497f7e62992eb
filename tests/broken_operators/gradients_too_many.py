"""An operator whose backward gives two gradients for one argument."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::gradients_too_many", mutates_args=())
def gradients_too_many(x: Tensor) -> Tensor:
    return of_array(x.numpy() ** 2)


@gradients_too_many.register_fake
def gradients_too_many_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
    (x,) = ctx.saved_tensors
    return g * x * 2, g


gradients_too_many.register_autograd(backward, setup_context=setup_context)


@gradients_too_many.samples
def gradients_too_many_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)).requires_grad_(),)]
