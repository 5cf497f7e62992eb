"""An operator whose jvp is right for positive arguments only."""

from __future__ import annotations

from typing import Any

import numpy as np

import polyop
from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::jvp_without_sign", mutates_args=())
def jvp_without_sign(x: Tensor) -> Tensor:
    return of_array(np.abs(x.numpy()) ** 1.5)


@jvp_without_sign.register_fake
def jvp_without_sign_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def backward(ctx: Any, g: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return g * 1.5 * polyop.abs(x) ** 0.5 * polyop.sign(x)


def jvp(ctx: Any, t: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    return t * 1.5 * polyop.abs(x) ** 0.5


jvp_without_sign.register_autograd(backward, setup_context=setup_context)
jvp_without_sign.register_jvp(jvp)


@jvp_without_sign.samples
def jvp_without_sign_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)).requires_grad_(),)]
