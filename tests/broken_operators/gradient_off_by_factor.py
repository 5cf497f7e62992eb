"""An operator whose gradient is three times too large."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::gradient_off_by_factor", mutates_args=())
def gradient_off_by_factor(x: Tensor) -> Tensor:
    return of_array(x.numpy() ** 2)


@gradient_off_by_factor.register_fake
def gradient_off_by_factor_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def backward(ctx: Any, g: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return g * x * 6


gradient_off_by_factor.register_autograd(backward, setup_context=setup_context)


@gradient_off_by_factor.samples
def gradient_off_by_factor_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)).requires_grad_(),)]
