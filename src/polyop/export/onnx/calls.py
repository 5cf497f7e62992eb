"""A call of an author's operator as a node of an ONNX model, in text.

Tensors, and what is computed while the model runs, are inputs of the node. All else is written
into one attribute: ONNX has no dtypes or devices among attributes, floats of 32 bits only, and no
lists in which inputs and numbers stand beside each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from polyop.devices import Device, as_dtype
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import ArgumentError
from polyop.layers.functionalize.twin import functional_twin, twin_schema
from polyop.objects.effects import has_effects

#: The attributes of a node: the operator, its schema, the module that defines it, its arguments.
OPERATOR, SCHEMA, MODULE, CALL = "operator", "schema", "module", "call"


class Input(NamedTuple):
    """Stands for an input of the node: its number."""

    number: int


def op_type(op: OpOverload) -> str:
    """Give an operator's name in the domain of its namespace."""
    schema = op._schema
    version = f"v{schema.version}" if schema.version > 1 else ""
    return "_".join(word for word in (schema.short_name, schema.overload_name, version) if word)


def facts_of(op: OpOverload) -> dict[str, str]:
    """Give the attributes of a node that say which operator it calls."""
    name = op._schema.qualified_name
    found = DEFINITIONS.get(name)
    module = found.module if found else ""
    return {OPERATOR: name, SCHEMA: str(op._schema), MODULE: module or _module_of_twin(name)}


def mutable_of(twin: str) -> OpOverload | None:
    """Find the operator whose functional twin has a name."""
    found = [d.op for d in list(DEFINITIONS.values()) if d.op._schema.is_mutable]
    return next((op for op in found if twin_schema(op._schema).qualified_name == twin), None)


def _module_of_twin(name: str) -> str:
    op = mutable_of(name)
    found = None if op is None else DEFINITIONS.get(op._schema.qualified_name)
    return found.module if found else ""


def written_out(op: OpOverload) -> OpOverload:
    """Give the operator, or its functional twin if it writes: models are functions."""
    return functional_twin(op) if op._schema.is_mutable else op


def refuse_unsayable(op: OpOverload) -> None:
    """Refuse operators that are no nodes.

    Raises:
        ArgumentError: a result is no Tensor, there is none, or calls have an effect.
    """
    results = [str(result.type) for result in op._schema.returns]
    if has_effects(op):
        _refuse(op, "no effect, since models are functions", "an effect")
    if set(results) != {"Tensor"}:
        _refuse(op, "Tensors as results, one or more", ", ".join(results) or "no result")


def _refuse(op: OpOverload, declared: str, seen: str) -> NoReturn:
    raise ArgumentError(
        f"{op.name()} is no node of an ONNX model: it needs {declared}",
        op=op._schema,
        declared=declared,
        seen=seen,
        source=op.source,
        fix="leave it outside of the model, or write an operator that returns Tensors",
    )


# -- text -------------------------------------------------------------------------------------


def to_text(values: Sequence[Any]) -> str:
    """Write arguments: `Input`s, and what is known."""
    return json.dumps([_plain(value) for value in values], separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Input):
        return {"input": value.number}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, Device):
        return {"device": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {"dtype": as_dtype(value).name}


_MADE: dict[str, Callable[[Any], Any]] = {
    "input": Input,
    "complex": lambda parts: complex(*parts),
    "device": Device,
    "dtype": as_dtype,
}


def from_text(text: str) -> list[Any]:
    """Read what `to_text` wrote."""
    found: list[Any] = [_value(item) for item in json.loads(text)]
    return found


def _value(item: Any) -> Any:
    if isinstance(item, list):
        return [_value(part) for part in item]
    if isinstance(item, dict):
        ((kind, given),) = item.items()
        return _MADE[kind](given)
    return item
