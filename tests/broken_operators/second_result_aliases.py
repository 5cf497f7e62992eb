"""An operator whose second result shares memory with the first."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::second_result_aliases", mutates_args=())
def second_result_aliases(x: Tensor) -> tuple[Tensor, Tensor]:
    result = x.numpy() * 2
    return of_array(result), of_array(result[:1])


@second_result_aliases.register_fake
def second_result_aliases_fake(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((1, *x.shape[1:]))


@second_result_aliases.samples
def second_result_aliases_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
