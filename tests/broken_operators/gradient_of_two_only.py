"""An operator of a list whose gradient is right for two tensors only."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::gradient_of_two_only", mutates_args=())
def gradient_of_two_only(xs: list[Tensor]) -> list[Tensor]:
    return [of_array(x.numpy() * (i + 1)) for i, x in enumerate(xs)]


@gradient_of_two_only.register_fake
def gradient_of_two_only_fake(xs: list[Tensor]) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in xs]


def backward(ctx: Any, g: list[Tensor]) -> tuple[list[Tensor]]:
    return ([h * (i + 1) if i < 2 else h * 0 for i, h in enumerate(g)],)


gradient_of_two_only.register_autograd(backward)


@gradient_of_two_only.samples
def gradient_of_two_only_samples() -> list[tuple[list[Tensor]]]:
    x = np.linspace(0.1, 1.0, 6).reshape(2, 3)
    return [([of_array(x), of_array(x + 1)],)]
