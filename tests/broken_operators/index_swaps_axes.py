"""An operator whose kernel gives the axes of its result in the other order."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::index_swaps_axes", mutates_args=(), index="(m),(n)->(m,n)")
def index_swaps_axes(x: Tensor, y: Tensor) -> Tensor:
    return of_array(np.ascontiguousarray(y.numpy()[..., :, None] * x.numpy()[..., None, :]))
