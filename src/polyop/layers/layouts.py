"""How tensors are laid out, kept where a new value takes the place of an old one.

Which views can be taken of a tensor, and whether `reshape` gives a view or a copy, is decided by
its strides.
"""

from __future__ import annotations

from polyop.ops.view_inverses import contiguous_copy
from polyop.ops.views import permute_dims
from polyop.tensor.meta import Shape, memory_order
from polyop.tensor.tensor import Tensor


def layout_of(tensor: Tensor) -> Shape | None:
    """Give the strides of a tensor, or None if its elements lie in order."""
    if tensor.is_contiguous():
        return None
    found: Shape = tensor.stride()
    return found


def laid_out(tensor: Tensor, layout: Shape | None) -> Tensor:
    """Give a tensor with its axes in the order in memory that a layout has: itself, or a copy."""
    if layout is None:
        return tensor if tensor.is_contiguous() else _copied(tensor)
    if are_same(tensor.stride(), layout):
        return tensor
    order, back = memory_order(tuple(map(abs, layout)))
    turned = permute_dims(tensor, order)
    if turned.is_contiguous():
        return tensor
    found: Tensor = permute_dims(_copied(turned), back)
    return found


def are_same(strides: Shape, others: Shape) -> bool:
    """Tell whether strides are known to be equal; a comparison of symbols would be a guard."""
    pairs = zip(strides, others, strict=True)
    return all(m is n or (type(m) is type(n) is int and m == n) for m, n in pairs)


def _copied(tensor: Tensor) -> Tensor:
    copy: Tensor = contiguous_copy(tensor)
    return copy
