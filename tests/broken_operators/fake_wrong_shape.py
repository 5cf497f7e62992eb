"""An operator whose fake rule keeps an axis that the kernel sums over."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::fake_wrong_shape", mutates_args=())
def fake_wrong_shape(x: Tensor) -> Tensor:
    return of_array(x.numpy().sum(axis=1))


@fake_wrong_shape.register_fake
def fake_wrong_shape_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@fake_wrong_shape.samples
def fake_wrong_shape_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
