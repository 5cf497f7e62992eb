"""An operator that changes one bit of its argument, and does not say so."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::writes_one_bit", mutates_args=())
def writes_one_bit(x: Tensor) -> Tensor:
    data = x.numpy()
    result = np.sin(data)
    data.view(np.int64)[0, 1] ^= 1
    return of_array(result)


@writes_one_bit.register_fake
def writes_one_bit_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@writes_one_bit.samples
def writes_one_bit_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
