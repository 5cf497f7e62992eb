"""The array libraries whose arrays the laws run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import polyop
from polyop import Tensor

jax.config.update("jax_enable_x64", True)


def _of_torch(array: Any) -> Tensor:
    made: Tensor = polyop.from_array(torch.tensor(np.array(array)))
    return made


def _of_jax(array: Any) -> Tensor:
    made: Tensor = polyop.from_array(jnp.asarray(array))
    return made


def _of_numpy(array: Any) -> Tensor:
    return polyop.from_numpy(np.array(array))


#: By name: how an array becomes a tensor with a payload of that library.
MAKERS: dict[str, Callable[[Any], Tensor]] = {
    "numpy": _of_numpy,
    "torch": _of_torch,
    "jax": _of_jax,
}


def available() -> list[str]:
    """Name the libraries whose arrays polyop takes as payloads as they are."""
    return list(MAKERS)
