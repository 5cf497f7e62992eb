"""Tags: facts about an operator that other parts may read.

Two of them are contracts on the schema (SPEC S25, S196).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TypeAlias

from polyop.errors import InferenceError, UsageError, UsageTypeError, nearest
from polyop.schema.model import Argument, FunctionSchema, alias
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
        _check(schema, tags, inferred=True)
    return schema


def _shared(result: Argument, written: Argument) -> Argument:
    return result._replace(alias_info=written.alias_info)


def check_tags(schema: FunctionSchema, tags: frozenset[Tag]) -> None:
    """Check the contracts of `Tag.inplace` and `Tag.out` for a schema from text (SPEC S25).

    Raises:
        InferenceError: if one is not kept.
    """
    _check(schema, tags, inferred=False)


def _check(schema: FunctionSchema, tags: frozenset[Tag], *, inferred: bool) -> None:
    """Check the contracts; the fix is a word about annotations, or the schema to write."""
    if Tag.inplace in tags and Tag.out in tags:
        raise _breach(schema, "Tag.inplace and Tag.out exclude each other", "drop one of them")
    for tag, breach, kept in CONTRACTS:
        if tag in tags and (found := breach(schema)):
            problem, fix = found
            if not inferred:
                fix = f"write {str(kept(schema))!r}, or drop the tag"
            raise _breach(schema, f"Tag.{tag.value}: {problem}", fix)


def _inplace_breach(schema: FunctionSchema) -> tuple[str, str] | None:
    first = schema.positional[0] if schema.positional else None
    if first is None or first.type != TENSOR:
        return "the first positional argument is no Tensor", "make it a Tensor"
    if schema.written != (first,):
        problem = "the first argument, and no other, is written"
        return problem, f"write mutates_args={{{first.name!r}}}"
    if not _returns_match(schema):
        return "the return is the written Tensor", "return Tensor"
    return None


def _out_breach(schema: FunctionSchema) -> tuple[str, str] | None:
    if not schema.written or any(not a.is_out or a.type != TENSOR for a in schema.written):
        problem = "the written arguments are keyword-only Tensors, at least one"
        return problem, "put them after '*', as Tensors, and their names into mutates_args"
    if not _returns_match(schema):
        problem = "the returns are the written Tensors, one by one"
        return problem, f"return {len(schema.written)} Tensors"
    return None


def _returns_match(schema: FunctionSchema) -> bool:
    returned = [(r.type, r.alias_info) for r in schema.returns]
    return returned == [(TENSOR, a.alias_info) for a in schema.written]


def _kept_inplace(schema: FunctionSchema) -> FunctionSchema:
    """Give the nearest schema that writes and returns its first argument, a Tensor."""
    added: tuple[Argument, ...] = () if schema.positional else (Argument("x", TENSOR),)
    first, *others = (*added, *schema.arguments)
    return _writing(schema, [first], others, kwarg_only=False)


def _kept_out(schema: FunctionSchema) -> FunctionSchema:
    """Give the nearest schema whose Tensors after `*` are written and returned."""
    tensors = [a for a in schema.arguments if a.type == TENSOR]
    outs = [a for a in tensors if a.is_write] or [a for a in tensors if a.kwarg_only]
    others = [a for a in schema.arguments if a not in outs]
    return _writing(schema, outs or [Argument("out", TENSOR)], others, kwarg_only=True)


def _writing(
    schema: FunctionSchema, written: list[Argument], others: list[Argument], *, kwarg_only: bool
) -> FunctionSchema:
    """Give a schema that writes and returns these of its arguments, and no others."""
    marked = [
        Argument(a.name, TENSOR, alias(f"a{i}" if i else "a", write=True), kwarg_only=kwarg_only)
        for i, a in enumerate(written)
    ]
    plain = [a._replace(alias_info=None) for a in others]
    return schema.but(
        arguments=tuple(plain + marked if kwarg_only else marked + plain),
        returns=tuple(Argument("", TENSOR, a.alias_info) for a in marked),
    )


#: For each tag with a contract: how a schema breaks it, in words, and the nearest that keeps it.
CONTRACTS = (
    (Tag.inplace, _inplace_breach, _kept_inplace),
    (Tag.out, _out_breach, _kept_out),
)


def _breach(schema: FunctionSchema, problem: str, fix: str) -> InferenceError:
    return InferenceError(problem, op=schema.qualified_name, declared=schema, fix=fix)
