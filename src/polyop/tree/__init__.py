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
        is_unopened,
        learn_record,
        leaves,
        map_leaves,
        outline,
        paths,
        record_values,
        register_record,
        remake_record,
        structure,
        unflatten,
    )
    from polyop.tree.records import (
        bare_record,
        field_of,
        fields_of,
        made_record,
        rest_of,
        with_fields,
    )

__all__ = [
    "TreeSpec",
    "bare_record",
    "build_record",
    "children",
    "field_of",
    "fields_of",
    "flatten",
    "is_unopened",
    "learn_record",
    "leaves",
    "made_record",
    "map_leaves",
    "outline",
    "paths",
    "record_values",
    "register_record",
    "remake_record",
    "rest_of",
    "structure",
    "unflatten",
    "with_fields",
]
_RECORDS = dict.fromkeys(
    ("bare_record", "field_of", "fields_of", "made_record", "rest_of", "with_fields"),
    "polyop.tree.records",
)
__getattr__, __dir__ = lazily(
    __name__, {**dict.fromkeys(__all__, "polyop.tree.containers"), **_RECORDS}
)
