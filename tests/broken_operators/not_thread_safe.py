"""An operator that keeps what it works on in a global, for as long as a call takes."""

from __future__ import annotations

import time

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.tensor.tensor import Tensor, of_array

scratch: dict[str, np.ndarray] = {}


@custom_op("broken::not_thread_safe", mutates_args=())
def not_thread_safe(x: Tensor) -> Tensor:
    scratch["count"] = scratch.get("count", np.zeros(())) + 1
    time.sleep(0.002)
    alone = scratch["count"] == 1
    scratch["count"] = scratch["count"] - 1
    return of_array(x.numpy() * (1 if alone else 2))


@not_thread_safe.register_fake
def not_thread_safe_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@not_thread_safe.samples
def not_thread_safe_samples() -> list[tuple[Tensor]]:
    return [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]
