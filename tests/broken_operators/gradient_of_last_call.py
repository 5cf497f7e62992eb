"""An operator that keeps what its gradient needs outside of ctx."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array

kept: dict[str, Tensor] = {}


@custom_op("broken::gradient_of_last_call", mutates_args=())
def gradient_of_last_call(x: Tensor) -> Tensor:
    return of_array(np.exp(x.numpy()))


@gradient_of_last_call.register_fake
def gradient_of_last_call_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    kept["output"] = output


def backward(ctx: Any, g: Tensor) -> Tensor:
    return g * kept["output"]


gradient_of_last_call.register_autograd(backward, setup_context=setup_context)


@gradient_of_last_call.samples
def gradient_of_last_call_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)).requires_grad_(),)]
