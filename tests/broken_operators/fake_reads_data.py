"""An operator whose fake rule looks at the data."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::fake_reads_data", mutates_args=())
def fake_reads_data(x: Tensor) -> Tensor:
    return of_array(x.numpy()[: int(x.numpy().sum())].copy())


@fake_reads_data.register_fake
def fake_reads_data_fake(x: Tensor) -> Tensor:
    return x.new_empty((int(x.sum().item()), 3))


@fake_reads_data.samples
def fake_reads_data_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
