"""Pytrees: nested containers seen as a flat list of leaves.

The list of names; each comes when it is first used, because `optree` takes a
fifth of the time in which all else is imported.
"""

from typing import TYPE_CHECKING

from polyop.lazy import lazily

if TYPE_CHECKING:
    from polyop.tree.containers import (
        TreeSpec,
        build_record,
        children,
        flatten,
        is_container,
        learn_record,
        leaves,
        map_leaves,
        outline,
        paths,
        record_values,
        register_record,
        structure,
        unflatten,
    )

__all__ = [
    "TreeSpec",
    "build_record",
    "children",
    "flatten",
    "is_container",
    "learn_record",
    "leaves",
    "map_leaves",
    "outline",
    "paths",
    "record_values",
    "register_record",
    "structure",
    "unflatten",
]
__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "polyop.tree.containers"))
