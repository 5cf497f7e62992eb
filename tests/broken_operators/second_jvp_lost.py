"""An operator whose jvp is right, and hides that it depends on the argument."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::second_jvp_lost", mutates_args=())
def second_jvp_lost(x: Tensor) -> Tensor:
    return of_array(x.numpy() ** 3)


@second_jvp_lost.register_fake
def second_jvp_lost_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def backward(ctx: Any, g: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return g * x**2 * 3


def jvp(ctx: Any, t: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return t * x.detach() ** 2 * 3


second_jvp_lost.register_autograd(backward, setup_context=setup_context)
second_jvp_lost.register_jvp(jvp)


@second_jvp_lost.samples
def second_jvp_lost_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)).requires_grad_(),)]
