"""An operator without a gradient, though its sample requires grad."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::gradient_missing", mutates_args=())
def gradient_missing(x: Tensor) -> Tensor:
    return of_array(x.numpy() ** 2)


@gradient_missing.register_fake
def gradient_missing_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@gradient_missing.samples
def gradient_missing_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)).requires_grad_(),)]
