"""An operator whose result is its argument, where the argument is contiguous."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::aliases_input", mutates_args=())
def aliases_input(x: Tensor) -> Tensor:
    return of_array(np.ascontiguousarray(x.numpy()))


@aliases_input.register_fake
def aliases_input_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@aliases_input.samples
def aliases_input_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
