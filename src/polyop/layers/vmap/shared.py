"""Memory that a write inside vmap meets more than once.

Copies of the written arguments would part what shares memory, and one run for
the whole batch would mix up samples that do. Such a call runs sample by sample
in the caller's memory instead, which is what a loop over the samples does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from polyop.dispatch.operator import OpOverload
from polyop.dispatch.results import tensors_in
from polyop.layers.levels import LEVEL_BITS
from polyop.layers.memory import below, meet
from polyop.layers.vmap.batch import VmapLevel, peel
from polyop.tensor.storage import Version
from polyop.tensor.tensor import Tensor

#: A tensor of a call as the level has it, and without the level, with the axis of the samples.
Leaf = tuple[Tensor, Tensor, int | None]


def is_shared(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> bool:
    """Tell whether memory that a call writes is that of another argument or sample too."""
    for (_, value, _), others in _writes(level, op, args):
        if _is_folded(value) or any(meet(value, other) for _, other, _ in others):
            return True
    return False


def is_crossed(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> bool:
    """Tell whether a sample that a call writes is memory of another sample too."""
    for target, others in _writes(level, op, args):
        if _is_folded(target[1]):
            return True
        for other in others:
            if meet(target[1], other[1]) and not _side_by_side(target, other):
                return True
    return False


def _writes(
    level: VmapLevel, op: OpOverload, args: Sequence[Any]
) -> Iterator[tuple[Leaf, list[Leaf]]]:
    """Give each batched tensor that is written, and all other tensors of the call."""
    leaves: list[Leaf] = []
    targets: list[int] = []
    for argument, arg in zip(op._schema.arguments, args, strict=True):
        for t in (arg,) if arg.__class__ is Tensor else tensors_in(arg):
            value, axis = peel(t, level)
            if argument.is_write and axis is not None:
                targets.append(len(leaves))
            leaves.append((t, value, axis))
    for i in targets:
        yield leaves[i], leaves[:i] + leaves[i + 1 :]


def _side_by_side(a: Leaf, b: Leaf) -> bool:
    """Tell whether each sample shares memory with its own sample alone."""
    if a[1] is b[1]:
        return a[2] == b[2]
    # Views that are taken inside of vmap are views of a sample.
    return a[0].version.__class__ is Version and a[0].version is b[0].version


def _is_folded(t: Tensor) -> bool:
    """Tell whether a tensor may have one element at several places."""
    while t.keys & LEVEL_BITS:
        t = below(t)
    array = t.payload
    if not isinstance(array, np.ndarray) or array.flags.forc:
        return False
    reach = array.itemsize  # what the axes so far cover
    for stride, n in sorted(zip(map(abs, array.strides), array.shape, strict=True)):
        if n > 1 and stride < reach:
            return True
        reach += stride * (n - 1)
    return False
