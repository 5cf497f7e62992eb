"""An operator whose decomposition computes something else than its kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

import polyop
from polyop import Tensor
from polyop.library import custom_op


@custom_op("broken::decomposition_differs", mutates_args=())
def decomposition_differs(x: Tensor) -> Tensor:
    """Compute `log(1 + x)`."""
    return polyop.from_numpy(np.log1p(x.numpy()))


decomposition_differs.register_fake(lambda x: polyop.empty_like(x))
decomposition_differs.register_vmap(lambda info, dims, x: (decomposition_differs(x), dims[0]))


def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


decomposition_differs.register_autograd(
    lambda ctx, g: g / (ctx.saved_tensors[0] + 1.0), setup_context=setup_context
)


@decomposition_differs.register_decomposition
def parts(x: Tensor) -> Tensor:
    return polyop.log(x + 1.001)


SAMPLES = {decomposition_differs: [(polyop.from_numpy(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]}
