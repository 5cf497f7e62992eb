"""Trees of tensors as rows: their leaves, and what puts others in their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from polyop import tree
from polyop.tensor.tensor import Tensor

Build = Callable[[Sequence[Any]], Any]
_alone: Build = itemgetter(0)


def taken_apart(value: Any) -> tuple[Sequence[Any], Build]:
    """Give the leaves of a tree, and what builds the tree of others.

    A tensor, and a tuple of tensors, are taken apart here: most are, for a fourth of the time.
    """
    if value.__class__ is Tensor:
        return (value,), _alone
    if value.__class__ is tuple:
        for x in value:
            if x.__class__ is not Tensor:
                break
        else:
            return value, tuple
    leaves, spec = tree.flatten(value)
    return leaves, partial(tree.unflatten, spec)
