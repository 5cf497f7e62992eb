"""Tags: facts about an operator that other parts may read.

Two of them are contracts on the schema (SPEC S25, S196).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TypeAlias

from polyop.errors import InferenceError, UsageError, UsageTypeError, nearest
from polyop.schema.model import Argument, FunctionSchema
from polyop.schema.types import TENSOR


class Tag(Enum):
    """A fact about an operator."""

    core = "core"
    cudagraph_unsafe = "cudagraph_unsafe"
    data_dependent_output = "data_dependent_output"
    dynamic_output_shape = "dynamic_output_shape"
    flexible_layout = "flexible_layout"
    generated = "generated"
    inplace = "inplace"
    inplace_view = "inplace_view"
    maybe_aliasing_or_mutating = "maybe_aliasing_or_mutating"
    needs_contiguous_strides = "needs_contiguous_strides"
    needs_exact_strides = "needs_exact_strides"
    needs_fixed_stride_order = "needs_fixed_stride_order"
    nondeterministic_bitwise = "nondeterministic_bitwise"
    nondeterministic_seeded = "nondeterministic_seeded"
    out = "out"
    out_variant = "out_variant"
    pointwise = "pointwise"
    pt2_compliant_tag = "pt2_compliant_tag"
    reduction = "reduction"
    view_copy = "view_copy"


Tags: TypeAlias = Tag | str | Iterable[Tag | str]


def as_tags(tags: Tags) -> frozenset[Tag]:
    """Give a set of tags, from one or several, which may be given by name.

    Raises:
        UsageError: for an unknown name.
        UsageTypeError: for something else.
    """
    several = isinstance(tags, Iterable) and not isinstance(tags, str)
    return frozenset(map(_as_tag, tags if several else (tags,)))  # type: ignore[arg-type]


def _as_tag(tag: object) -> Tag:
    if isinstance(tag, Tag):
        return tag
    if not isinstance(tag, str):
        raise UsageTypeError("not a tag", seen=repr(tag), fix="give members of polyop.Tag")
    if tag not in Tag.__members__:
        raise UsageError(f"no tag {tag!r}{nearest(tag, Tag.__members__)}")
    return Tag[tag]


def with_tag_aliases(schema: FunctionSchema, tags: frozenset[Tag]) -> FunctionSchema:
    """Give the returns of an inferred schema the alias sets that its tags promise.

    Raises:
        InferenceError: if the schema does not keep the contract of a tag.
    """
    if Tag.inplace in tags or Tag.out in tags:
        if len(schema.returns) == len(schema.written):
            schema = schema.but(returns=tuple(map(_shared, schema.returns, schema.written)))
        check_tags(schema, tags)
    return schema


def _shared(result: Argument, written: Argument) -> Argument:
    return result._replace(alias_info=written.alias_info)


def check_tags(schema: FunctionSchema, tags: frozenset[Tag]) -> None:
    """Check the contracts of `Tag.inplace` and `Tag.out` (SPEC S25).

    Raises:
        InferenceError: if one is not kept.
    """
    if Tag.inplace in tags and Tag.out in tags:
        raise _breach(schema, "Tag.inplace and Tag.out exclude each other", "drop one of them")
    if Tag.inplace in tags:
        _check_inplace(schema)
    if Tag.out in tags:
        _check_out(schema)


def _check_inplace(schema: FunctionSchema) -> None:
    first = schema.positional[0] if schema.positional else None
    if first is None or first.type != TENSOR:
        fix = "make it a Tensor"
        raise _breach(schema, "Tag.inplace: the first positional argument is no Tensor", fix)
    if schema.written != (first,):
        problem = "Tag.inplace: the first argument, and no other, is written"
        raise _breach(schema, problem, f"write mutates_args={{{first.name!r}}}")
    if not _returns_match(schema):
        raise _breach(schema, "Tag.inplace: the return is the written Tensor", "return Tensor")


def _check_out(schema: FunctionSchema) -> None:
    if not schema.written or any(not a.is_out or a.type != TENSOR for a in schema.written):
        problem = "Tag.out: the written arguments are keyword-only Tensors, at least one"
        raise _breach(schema, problem, "put them after '*', as Tensors")
    if not _returns_match(schema):
        problem = "Tag.out: the returns are the written Tensors, one by one"
        raise _breach(schema, problem, f"return {len(schema.written)} Tensors")


def _returns_match(schema: FunctionSchema) -> bool:
    returned = [(r.type, r.alias_info) for r in schema.returns]
    return returned == [(TENSOR, a.alias_info) for a in schema.written]


def _breach(schema: FunctionSchema, problem: str, fix: str) -> InferenceError:
    return InferenceError(problem, op=schema.qualified_name, declared=schema, fix=fix)
