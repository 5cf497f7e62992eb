"""Questions about a schema, and walks along it (SPEC S27, S28)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polyop.schema.model import Argument, FunctionSchema
from polyop.schema.parse import parse_schema
from polyop.schema.types import (
    DEVICE,
    OPT_TENSOR,
    TENSOR,
    ListType,
    OptionalType,
    Type,
    holds_tensor,
)


def is_tensor_like_type(schema_type: Type) -> bool:
    """Say whether a type is `Tensor` or `Tensor?`."""
    return schema_type in (TENSOR, OPT_TENSOR)


def is_tensorlist_like_type(schema_type: Type) -> bool:
    """Say whether a type is a list of `Tensor` or `Tensor?`, or such a list or None."""
    inner = schema_type.elem if isinstance(schema_type, OptionalType) else schema_type
    return isinstance(inner, ListType) and is_tensor_like_type(inner.elem)


def has_tensor_arg(schema: FunctionSchema) -> bool:
    """Say whether some argument can hold Tensors."""
    return any(holds_tensor(a.type) for a in schema.arguments)


def has_kwarg_only_args(schema: FunctionSchema) -> bool:
    """Say whether some argument is keyword-only."""
    return bool(schema.keyword_only)


def has_kwarg_only_tensors(schema: FunctionSchema) -> bool:
    """Say whether some keyword-only argument can hold Tensors."""
    return any(holds_tensor(a.type) for a in schema.keyword_only)


def get_device_arg_index(schema: FunctionSchema) -> int | None:
    """Give the place of the `Device` argument named `device`, or None."""
    for index, argument in enumerate(schema.arguments):
        if argument.name == "device" and argument.type in (DEVICE, OptionalType(DEVICE)):
            return index
    return None


def mutated_args_kwargs(schema: FunctionSchema) -> tuple[list[int], list[str]]:
    """Give the written arguments: places of positional ones, names of keyword-only ones."""
    places = [i for i, a in enumerate(schema.positional) if a.is_write]
    return places, [a.name for a in schema.keyword_only if a.is_write]


def is_functional_schema(schema: FunctionSchema | str, *, allow_valid_view: bool = False) -> bool:
    """Say whether an operator writes nothing, aliases nothing and returns something.

    Args:
        schema: a schema or its text.
        allow_valid_view: let a view of one Tensor that returns one Tensor pass.
    """
    if not isinstance(schema, FunctionSchema):
        schema = parse_schema(schema)
    if schema.is_mutable or not schema.returns:
        return False
    shared = [a for a in (*schema.arguments, *schema.returns) if a.alias_info is not None]
    return not shared or (allow_valid_view and is_simple_view(schema))


def is_simple_view(schema: FunctionSchema) -> bool:
    """Say whether an operator returns one Tensor, a view of one of its Tensors."""
    viewed = [a for a in schema.arguments if a.alias_info is not None]
    return (
        schema.is_view
        and len(viewed) == len(schema.returns) == 1
        and viewed[0].type == schema.returns[0].type == TENSOR
        and schema.returns[0].alias_info is not None
    )


def fill_defaults(
    schema: FunctionSchema, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give args and kwargs of a call with the defaults in them.

    Positional arguments given by name become positional.
    """
    given = dict(zip((a.name for a in schema.positional), args, strict=False)) | dict(kwargs)
    full = {a.name: given.get(a.name, a.default_value) for a in schema.arguments}
    positional = tuple(full[a.name] for a in schema.positional)
    return positional, {a.name: full[a.name] for a in schema.keyword_only}


def zip_schema(
    schema: FunctionSchema, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[Argument, Any]]:
    """Give each argument that a call has with its value, in schema order."""
    for index, argument in enumerate(schema.arguments):
        if argument.name in kwargs:
            yield argument, kwargs[argument.name]
        elif index < len(args) and not argument.kwarg_only:
            yield argument, args[index]
