"""Tensors in JAX's trees: a tensor over an array is a node, whose only leaf is the array.

So functions under `jax.jit`, `grad` and `vmap` take tensors and give tensors, with JAX's tracers
inside. A history of ours would be cut there in silence, so a tensor that has one is refused.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from polyop.errors import AutogradError
from polyop.payloads.api import from_array, to_array
from polyop.tensor.tensor import Tensor


class Placeholder:
    """What JAX puts in the place of an array where it asks only how a tree is made."""

    __slots__ = ("leaf",)
    shape = strides = ()
    dtype = np.dtype(bool)

    def __init__(self, leaf: Any) -> None:
        self.leaf = leaf

    def __repr__(self) -> str:
        return f"<{self.leaf!r} of a tree, in the place of an array>"


def _flatten(tensor: Tensor) -> tuple[tuple[Any], None]:
    payload = tensor.payload
    if payload.__class__ is Placeholder:
        return (payload.leaf,), None
    if tensor.requires_grad:
        raise AutogradError(
            "a tensor that requires grad would lose its history in JAX",
            seen=repr(tensor)[:120],
            fix="give tensor.detach(), and differentiate with jax.grad; or use polyop.func.grad",
        )
    return (to_array(tensor),), None


def _unflatten(_: None, leaves: tuple[Any]) -> Tensor:
    (leaf,) = leaves
    if isinstance(leaf, (jax.Array, np.ndarray)):
        return from_array(leaf)
    tensor = Tensor()
    tensor.payload, tensor.keys, tensor.version = Placeholder(leaf), 0, 0
    return tensor


jax.tree_util.register_pytree_node(Tensor, _flatten, _unflatten)
