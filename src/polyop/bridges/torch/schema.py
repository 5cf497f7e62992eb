"""An operator's schema in PyTorch's words, and values in both directions.

All arguments are positional there, so that one order serves every rule. What an operator writes
and returns is not among its results there: the call gives the argument itself back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import torch

from polyop.devices import Device, DType, as_dtype
from polyop.dispatch.body import result_forms
from polyop.dispatch.operator import OpOverload
from polyop.errors import ArgumentError
from polyop.payloads.libraries import LIBRARIES
from polyop.schema.model import MISSING, Argument
from polyop.schema.types import BaseType, ListType, LiteralType, OptionalType, Type, leaf_kind

Convert = Callable[[Any], Any]
TORCH = LIBRARIES["torch"][1]


class Place(NamedTuple):
    """One argument.

    Attributes:
        name: of the argument.
        kind: what can hold tensors in it, as `leaf_kind` says; `"static"` holds none.
        written: whether the operator writes it.
        given: makes PyTorch's value of ours; None if both are the same.
        taken: makes our value of PyTorch's; None if both are the same.
    """

    name: str
    kind: str
    written: bool
    given: Convert | None
    taken: Convert | None


class Translation(NamedTuple):
    """A schema in PyTorch's words.

    Attributes:
        text: the schema, without namespace.
        places: the arguments.
        forms: what each of our results is.
        defaults: by position, what PyTorch leaves out when it is equal.
    """

    text: str
    places: tuple[Place, ...]
    forms: tuple[tuple[str, int], ...]
    defaults: tuple[Any, ...]

    @property
    def results(self) -> list[tuple[str, int]]:
        """What the results are there: those that are no arguments."""
        return [form for form in self.forms if form[0] != "argument"]


def translate(op: OpOverload) -> Translation:
    """Spell an operator's schema for PyTorch.

    Raises:
        ArgumentError: an argument or a result has a type that PyTorch has not.
    """
    schema = op._schema
    forms = result_forms(schema)
    words = [_argument(op, a) for a in schema.arguments]
    returns = []
    for i, (kind, _) in enumerate(forms):
        if kind in {"view", "views"}:
            _refuse_view(op, i)
        if kind not in {"argument", "new", "list"}:
            _refuse(op, f"result {i}", schema.returns[i].type, "results are new tensors")
        if kind != "argument":
            returns.append("Tensor[]" if kind == "list" else "Tensor")
    text = f"{name_of(op)}({', '.join(_with_defaults(schema.arguments, words))})"
    places = tuple([_place(a) for a in schema.arguments])
    values = tuple([a.default_value for a in schema.arguments])
    return Translation(f"{text} -> ({', '.join(returns)})", places, forms, values)


def name_of(op: OpOverload) -> str:
    """Give an operator's name in its namespace; a version is an overload there."""
    schema = op._schema
    version = f"v{schema.version}" if schema.version > 1 else ""
    overload = "_".join(word for word in (schema.overload_name, version) if word)
    return f"{schema.short_name}.{overload}" if overload else schema.short_name


def _place(argument: Argument) -> Place:
    kind = leaf_kind(argument.type)
    base = _base(argument.type)
    given, taken = _CONVERTERS.get(base.name if isinstance(base, BaseType) else "", (None, None))
    return Place(
        argument.name,
        kind,
        argument.is_write,
        None if given is None else _through(given),
        None if taken is None else _through(taken),
    )


def _through(convert: Convert) -> Convert:
    """Convert what lists hold, and leave None alone."""

    def mapped(value: Any) -> Any:
        if value is None:
            return None
        return [mapped(v) for v in value] if isinstance(value, list | tuple) else convert(value)

    return mapped


# -- types ----------------------------------------------------------------------------------

#: The types that both have, by the name of ours.
_SAME = frozenset(
    ("Tensor", "int", "SymInt", "float", "bool", "str", "Scalar", "complex", "ScalarType", "Device")
)


def _base(kind: Type) -> Type:
    return _base(kind.elem) if isinstance(kind, OptionalType | ListType) else kind


def _type_text(kind: Type, alias: str = "") -> str | None:
    """Spell a type; None if PyTorch has none."""
    if isinstance(kind, OptionalType):
        inner = _type_text(kind.elem, alias)
        return None if inner is None else f"{inner}?"
    if isinstance(kind, ListType):
        inner = _type_text(kind.elem, alias)
        return None if inner is None or inner.endswith("]") else f"{inner}[]"
    if isinstance(kind, LiteralType):
        names = {type(value).__name__ for value in kind.values}
        return names.pop() if len(names) == 1 else None
    if isinstance(kind, BaseType) and kind.name in _SAME:
        return f"Tensor{alias}" if kind.name == "Tensor" else kind.name
    return None


def _argument(op: OpOverload, argument: Argument) -> str:
    i = op._schema.arguments.index(argument)
    found = _type_text(argument.type, f"(a{i}!)" if argument.is_write else "")
    if found is None:
        _refuse(op, argument.name, argument.type, "a type that PyTorch's schemas have")
    return f"{found} {argument.name}"


def _refuse(op: OpOverload, name: str, kind: Type, declared: str) -> NoReturn:
    raise ArgumentError(
        f"{op.name()} takes no tensors of PyTorch: {name!r} is of the type {kind}, which an "
        "operator of PyTorch cannot have",
        op=op._schema,
        argument=name,
        declared=declared,
        seen=str(kind),
        source=op.source,
        fix="wrap the tensors with polyop.from_array, call the operator outside of PyTorch's "
        "transforms, or give it another schema",
    )


def _refuse_view(op: OpOverload, number: int) -> NoReturn:
    raise ArgumentError(
        f"{op.name()} is no operator of PyTorch, which its gradients, transforms and traces call: "
        f"result {number} is declared as a view",
        op=op._schema,
        declared="results that share memory with no argument",
        seen=str(op._schema.returns[number]),
        source=op.source,
        fix="call it outside of them, on tensors that require no grad; or return a copy, and "
        "declare no alias",
    )


# -- defaults -------------------------------------------------------------------------------


def _with_defaults(arguments: Sequence[Argument], words: Sequence[str]) -> list[str]:
    """Add the defaults to the last arguments, up to the first from behind without one."""
    found: list[str] = []
    for argument, word in zip(reversed(arguments), reversed(words), strict=True):
        text = _default_text(argument.default_value) if len(found) == _count(found) else None
        found.append(word if text is None else f"{word}={text}")
    return found[::-1]


def _count(words: Sequence[str]) -> int:
    return sum("=" in word for word in words)


def _default_text(value: Any) -> str | None:
    if value is MISSING:
        return None
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        items = [_default_text(v) for v in value]
        return None if None in items else f"[{', '.join(map(str, items))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return repr(value) if value is None or isinstance(value, int | float) else None


# -- values ---------------------------------------------------------------------------------


def torch_dtype(dtype: Any) -> torch.dtype:
    """Give PyTorch's word for a dtype."""
    found: torch.dtype = dtype if isinstance(dtype, torch.dtype) else TORCH.native(as_dtype(dtype))
    return found


def our_dtype(dtype: torch.dtype) -> DType:
    """Give our word for a dtype of PyTorch."""
    return as_dtype(str(dtype).removeprefix("torch."))


def torch_device(device: Any) -> torch.device:
    """Give PyTorch's word for a device."""
    return device if isinstance(device, torch.device) else torch.device(str(device))


def our_device(device: torch.device) -> Device:
    """Give our word for a device of PyTorch."""
    return Device(device.type, device.index)


_CONVERTERS: dict[str, tuple[Convert, Convert]] = {
    "ScalarType": (torch_dtype, our_dtype),
    "Device": (torch_device, our_device),
}
