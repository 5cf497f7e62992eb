"""An operator whose kernel gives a result in column order."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::fake_wrong_stride", mutates_args=())
def fake_wrong_stride(x: Tensor) -> Tensor:
    return of_array(np.array(x.numpy() * 2, order="F"))


@fake_wrong_stride.register_fake
def fake_wrong_stride_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@fake_wrong_stride.samples
def fake_wrong_stride_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
