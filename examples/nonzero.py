"""A result whose size depends on data: the indices of the nonzero elements."""

import numpy as np

import polyop
from polyop import Tensor


@polyop.custom_op("examples::nonzero", mutates_args=(), tags=polyop.Tag.dynamic_output_shape)
def nonzero(x: Tensor) -> Tensor:
    """Give the indices of the nonzero elements, one row each: int64, shape (count, x.ndim)."""
    return polyop.from_numpy(np.stack(np.nonzero(x.numpy()), axis=1))


@nonzero.register_fake
def nonzero_fake(x):
    count = polyop.library.get_ctx().new_dynamic_size()
    return x.new_empty(count, x.ndim, dtype=polyop.int64)


nonzero.register_autograd(None)  # indices have no gradient


@nonzero.samples
def nonzero_samples():
    yield [polyop.tensor([0.0, 1.0, 2.0, 0.0, 4.0])]
    yield [polyop.tensor([[0, 3], [5, 0], [7, 9]])]
    yield [polyop.zeros(4)]
