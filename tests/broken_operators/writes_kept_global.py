"""An operator that keeps a buffer, and gives it back from each call."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array

kept: dict[tuple[object, ...], np.ndarray] = {}


@custom_op("broken::writes_kept_global", mutates_args=())
def writes_kept_global(x: Tensor) -> Tensor:
    buffer = kept.setdefault((x.dtype.name, *x.shape), np.empty(x.shape, x.dtype))
    np.multiply(x.numpy(), 2, out=buffer)
    return of_array(buffer)


@writes_kept_global.register_fake
def writes_kept_global_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@writes_kept_global.samples
def writes_kept_global_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
