"""Who shares memory, looked for below the levels that wrap it."""

from __future__ import annotations

from polyop.dispatch.bits import FUNCTIONAL
from polyop.layers.levels import LEVEL_BITS
from polyop.tensor.storage import shares_memory
from polyop.tensor.tensor import Tensor


def meet(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors share memory, here or below the levels that wrap them."""
    if shares_memory(a, b):
        return True
    if a.keys & b.keys & FUNCTIONAL and a.payload.storage is b.payload.storage:
        return True
    return bool((a.keys | b.keys) & LEVEL_BITS) and meet(below(a), below(b))


def below(t: Tensor) -> Tensor:
    """Give the tensor that a level wraps; one that no level wraps is given back."""
    found: Tensor = t.payload.value if t.keys & LEVEL_BITS else t
    return found
