"""An operator whose fake rule remembers the shape of the sample."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::fake_only_at_sample", mutates_args=())
def fake_only_at_sample(x: Tensor) -> Tensor:
    return of_array(x.numpy() * 2)


@fake_only_at_sample.register_fake
def fake_only_at_sample_fake(x: Tensor) -> Tensor:
    return x.new_empty((2, 3))


@fake_only_at_sample.samples
def fake_only_at_sample_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
