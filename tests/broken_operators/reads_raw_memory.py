"""An operator that reads memory in order, whatever the strides are."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::reads_raw_memory", mutates_args=())
def reads_raw_memory(x: Tensor) -> Tensor:
    data = x.numpy()
    return of_array(data.ravel(order="K").reshape(data.shape) * 2)


@reads_raw_memory.register_fake
def reads_raw_memory_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@reads_raw_memory.samples
def reads_raw_memory_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
