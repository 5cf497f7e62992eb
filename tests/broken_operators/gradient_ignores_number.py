"""An operator whose gradient is right for one exponent only."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::gradient_ignores_number", mutates_args=())
def gradient_ignores_number(x: Tensor, p: float = 2.0) -> Tensor:
    return of_array(x.numpy() ** p)


@gradient_ignores_number.register_fake
def gradient_ignores_number_fake(x: Tensor, p: float = 2.0) -> Tensor:
    return x.new_empty(x.shape)


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    return g * x * 2, None


gradient_ignores_number.register_autograd(backward, setup_context=setup_context)


@gradient_ignores_number.samples
def gradient_ignores_number_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)).requires_grad_(),)]
