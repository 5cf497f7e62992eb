"""An operator that draws random numbers, and does not say so."""

from __future__ import annotations

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array

rng = np.random.default_rng()


@custom_op("broken::nondeterministic", mutates_args=())
def nondeterministic(x: Tensor) -> Tensor:
    return of_array(x.numpy() + rng.normal(size=x.shape).astype(x.dtype))


@nondeterministic.register_fake
def nondeterministic_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@nondeterministic.samples
def nondeterministic_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
