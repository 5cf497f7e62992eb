"""An operator whose fake rule keeps the dtype, though the kernel does not."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::fake_wrong_dtype", mutates_args=())
def fake_wrong_dtype(x: Tensor) -> Tensor:
    return of_array(np.signbit(x.numpy()))


@fake_wrong_dtype.register_fake
def fake_wrong_dtype_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@fake_wrong_dtype.samples
def fake_wrong_dtype_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
