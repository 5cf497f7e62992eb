"""An operator whose kernel takes vectors of different sizes, though one name says one size."""

from __future__ import annotations

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array


@custom_op("broken::index_takes_any_size", mutates_args=(), index="(n),(n)->(n)")
def index_takes_any_size(x: Tensor, y: Tensor) -> Tensor:
    return of_array(x.numpy() + y.numpy()[..., : x.shape[-1]])
