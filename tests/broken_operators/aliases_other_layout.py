"""An operator whose result is its argument, only where the argument is not contiguous."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::aliases_other_layout", mutates_args=())
def aliases_other_layout(x: Tensor) -> Tensor:
    data = x.numpy()
    return of_array(data.copy() if data.flags.c_contiguous else data)


@aliases_other_layout.register_fake
def aliases_other_layout_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@aliases_other_layout.samples
def aliases_other_layout_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
