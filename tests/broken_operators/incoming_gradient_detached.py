"""An operator whose gradient hides that it depends on the incoming one."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::incoming_gradient_detached", mutates_args=())
def incoming_gradient_detached(x: Tensor) -> Tensor:
    return of_array(x.numpy() ** 3)


@incoming_gradient_detached.register_fake
def incoming_gradient_detached_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def backward(ctx: Any, g: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return g.detach() * x**2 * 3


incoming_gradient_detached.register_autograd(backward, setup_context=setup_context)


@incoming_gradient_detached.samples
def incoming_gradient_detached_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)).requires_grad_(),)]
