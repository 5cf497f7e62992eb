"""An operator whose vmap rule takes the batch to be in front, wherever it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::vmap_wrong_in_dims", mutates_args=())
def vmap_wrong_in_dims(x: Tensor) -> Tensor:
    return of_array(np.cumsum(x.numpy(), axis=-1))


@vmap_wrong_in_dims.register_fake
def vmap_wrong_in_dims_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@vmap_wrong_in_dims.register_vmap
def vmap_wrong_in_dims_vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
    return vmap_wrong_in_dims(x), 0


@vmap_wrong_in_dims.samples
def vmap_wrong_in_dims_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
