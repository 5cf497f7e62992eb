"""What is said of a fake result that differs from the kernel's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.symbolic import SymInt


def ranged(shape: Sequence[Any]) -> str:
    """Write sizes; one that depends on data with its range, which may be what is wrong."""
    texts = [f"{n} within {n.expr.range}" if isinstance(n, SymInt) else str(n) for n in shape]
    return f"[{', '.join(texts)}]"


def wrong_of_sizes(told: Sequence[Any], seen: Sequence[int]) -> str:
    """Name what is wrong of a shape: the range of a size that depends on data, or all of it."""
    pairs = [*zip(told, seen, strict=False)]
    unbacked = [(n, m) for n, m in pairs if isinstance(n, SymInt) and n.hint is None]
    outside = any(not n.expr.range[0] <= m <= n.expr.range[1] for n, m in unbacked)
    return "range of a size" if outside and len(told) == len(seen) else "shape"


def fix_of(what: str, at: str) -> str:
    """Say what an author does about it."""
    if what == "range of a size":
        return "declare the range that the kernel's sizes have: new_dynamic_size(min=..., max=...)"
    if what == "shape" and at:
        return "compute the shape from the arguments' shapes (x.shape), not from the sample's"
    if what in {"shape", "dtype", "device", "strides"}:
        return f"make the fake rule give the kernel's {what}, or the kernel the rule's"
    return "make the fake rule and the kernel agree"
