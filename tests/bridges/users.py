"""Operators as a user's module has them, for processes that know nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

import polyop
from polyop import Tensor


@polyop.custom_op("users::add_to", mutates_args={"out"})
def add_to(x: Tensor, out: Tensor) -> None:
    out.numpy()[...] += x.numpy()


lib = polyop.library.Library("users", "FRAGMENT")
lib.define("scale.into(Tensor x, float factor, *, Tensor(a!) out) -> Tensor")


@polyop.library.impl(lib, "scale.into", "CPU")
def scale_into(x: Tensor, factor: float, *, out: Tensor) -> Tensor:
    out.numpy()[...] = x.numpy() * factor
    return polyop.from_numpy(np.asarray(out.numpy().sum()))


polyop.library.register_fake(
    "users::scale.into", lambda x, factor, *, out: x.new_empty([]), lib=lib
)


@polyop.custom_op("users::places", mutates_args=())
def places(x: Tensor) -> Tensor:
    return polyop.from_numpy(np.flatnonzero(x.numpy() > 0))


@places.register_fake
def places_fake(x: Any) -> Any:
    size = polyop.library.get_ctx().new_dynamic_size(max=x.shape[0])
    return x.new_empty([size], dtype=polyop.int64)
