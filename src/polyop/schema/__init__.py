"""Schemas: text and annotations to a frozen signature; values against its types."""

from typing import TYPE_CHECKING

from polyop.lazy import lazily
from polyop.schema.classes import class_named, register_class_name, register_stand_in
from polyop.schema.model import MISSING, AliasInfo, Argument, FunctionSchema
from polyop.schema.parse import parse_schema
from polyop.schema.tags import Tag, as_tags, check_tags
from polyop.schema.types import Type, holds_tensor, leaf_kind
from polyop.schema.values import Mismatch, convert, default_matches, fit_default, thaw

if TYPE_CHECKING:
    from polyop.schema.annotations import register_annotation
    from polyop.schema.infer import check_written, infer_schema
    from polyop.schema.predicates import is_functional_schema

__getattr__, __dir__ = lazily(
    __name__,
    {
        "check_written": "polyop.schema.infer",
        "infer_schema": "polyop.schema.infer",
        "is_functional_schema": "polyop.schema.predicates",
        "register_annotation": "polyop.schema.annotations",
    },
)

__all__ = [
    "MISSING",
    "AliasInfo",
    "Argument",
    "FunctionSchema",
    "Mismatch",
    "Tag",
    "Type",
    "as_tags",
    "check_tags",
    "check_written",
    "class_named",
    "convert",
    "default_matches",
    "fit_default",
    "holds_tensor",
    "infer_schema",
    "is_functional_schema",
    "leaf_kind",
    "parse_schema",
    "register_annotation",
    "register_class_name",
    "register_stand_in",
    "thaw",
]
