"""How an operator wants its tensors to lie in memory, as its tags say (S197).

A program that is run otherwise than it was written (decomposed, reordered, by
another backend) may hand an operator's kernel the same values in other
strides. A built-in kernel takes any; an author's may have been written for
what eager calls hand it, and gets exactly that unless a tag says less.
"""

from __future__ import annotations

from typing import Any

from polyop.dispatch.registry import as_operator
from polyop.schema.tags import Tag

#: The tags of layouts, the strictest first.
LAYOUTS = (
    Tag.needs_exact_strides,
    Tag.needs_contiguous_strides,
    Tag.needs_fixed_stride_order,
    Tag.flexible_layout,
)


def layout_of(op: Any) -> Tag:
    """Give the strictest layout tag of an operator, or what holds without one.

    Args:
        op: the operator, in any form.

    Returns:
        `needs_exact_strides` (those of the eager call), `needs_contiguous_strides`,
        `needs_fixed_stride_order` (the eager order of axes), or `flexible_layout`.
    """
    found = as_operator(op)
    plain = Tag.flexible_layout if found.is_builtin else Tag.needs_exact_strides
    return next((tag for tag in LAYOUTS if tag in found.tags), plain)
