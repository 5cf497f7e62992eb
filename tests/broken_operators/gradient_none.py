"""An operator whose backward gives None for an argument that matters."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::gradient_none", mutates_args=())
def gradient_none(x: Tensor, y: Tensor) -> Tensor:
    return of_array(x.numpy() * y.numpy())


@gradient_none.register_fake
def gradient_none_fake(x: Tensor, y: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
    _, y = ctx.saved_tensors
    return g * y, None


gradient_none.register_autograd(backward, setup_context=setup_context)


@gradient_none.samples
def gradient_none_samples() -> list[tuple[Tensor, Tensor]]:
    x = np.linspace(0.1, 1.0, 6).reshape(2, 3)
    return [(of_array(x), of_array(x + 1))]
