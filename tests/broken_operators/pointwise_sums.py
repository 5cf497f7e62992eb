"""An operator that is tagged pointwise, and adds up all elements before each."""

from __future__ import annotations

import numpy as np

import polyop
from polyop import Tag, Tensor
from polyop.library import custom_op


@custom_op("broken::pointwise_sums", mutates_args=(), tags=(Tag.pointwise,))
def pointwise_sums(x: Tensor) -> Tensor:
    """Compute running sums of the last axis."""
    return polyop.from_numpy(np.cumsum(x.numpy(), axis=-1))


pointwise_sums.register_fake(lambda x: polyop.empty_like(x))
pointwise_sums.register_vmap(lambda info, dims, x: (pointwise_sums(x.movedim(dims[0], 0)), 0))
pointwise_sums.register_autograd(
    lambda ctx, g: polyop.flip(polyop.cumulative_sum(polyop.flip(g, axis=-1), axis=-1), axis=-1)
)

SAMPLES = {pointwise_sums: [(polyop.from_numpy(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]}
