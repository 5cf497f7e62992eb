"""An operator that keeps its argument where nobody sees that it is written."""

from __future__ import annotations

from typing import Any

import numpy as np

import polyop
from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::gradient_of_written", mutates_args=())
def gradient_of_written(x: Tensor) -> Tensor:
    return of_array(np.exp(x.numpy()))


@gradient_of_written.register_fake
def gradient_of_written_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.x = inputs[0]


def backward(ctx: Any, g: Tensor) -> Tensor:
    return g * polyop.exp(ctx.x)


gradient_of_written.register_autograd(backward, setup_context=setup_context)


@gradient_of_written.samples
def gradient_of_written_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)).requires_grad_(),)]
