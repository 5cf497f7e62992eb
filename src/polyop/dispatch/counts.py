"""Counts writes: what generated functions call where a tensor shares its count.

A tensor that nobody aliases is counted in place, by the generated text.
"""

from __future__ import annotations

from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD, NO_GRAD
from polyop.dispatch.context import word
from polyop.dispatch.parts import PARTS


def bump_shared(op: Any, tensor: Any) -> None:
    """Count a write to a tensor that shares its storage."""
    # A view without history may have been made under no_grad, of a base with one.
    if not (tensor.keys & GRAD or word() & NO_GRAD) and hasattr(tensor, "view_of"):
        PARTS.refuse_unseen(op, tensor)
    tensor.version.n += 1


def bump_in(op: Any, value: Any) -> None:
    """Count a write to each tensor of a tree."""
    for leaf in tree.leaves(value):
        if isinstance(leaf, PARTS.Tensor):
            if leaf.version.__class__ is int:
                leaf.version += 1
            else:
                bump_shared(op, leaf)
