"""What a container of tensors holds, read by a function that is written from its type.

The common containers (a dict of tensors, a record of tensors and numbers) are
read without a walk over the tree: the function gives the tensors of a value
that is to pass as it is, and None for any other, which is walked and converted.
"""

from __future__ import annotations

from collections.abc import Callable
from keyword import iskeyword
from typing import Any

from polyop.dispatch.parts import PARTS
from polyop.dispatch.write import EXACT, Shape, indent, make_function, odd_text
from polyop.records import NamedTuple
from polyop.schema.model import FunctionSchema
from polyop.schema.types import (
    OPT_TENSOR,
    STR,
    TENSOR,
    DictType,
    OptionalType,
    RecordType,
    Type,
    leaf_kind,
)

#: Gives the tensors of a value, or None.
Reader = Callable[[Any], "list[Any] | None"]


def readers_of(schema: FunctionSchema) -> dict[str, Reader]:
    """Give the readers of a schema's trees, by their names in texts."""
    found = enumerate([a.type for a in schema.arguments])
    return {f"read{i}": _reader(t) for i, t in found if leaf_kind(t) == "tree"}


def reads_text(shape: Shape) -> list[str]:
    """Lines that leave the tensors of each tree in `_t0`, `_t1`, ..."""
    return [f"_t{a[1:]} = read{a[1:]}({a})" for a in shape.of("tree")]


def copies_text(shape: Shape) -> list[str]:
    """Lines that copy dicts, so that one which the caller changes later changes nothing here."""
    dicts = [a for a, text in zip(shape.names, shape.types, strict=True) if text[:5] == "Dict("]
    return [f"if {a}.__class__ is dict: {a} = {{**{a}}}" for a in shape.of("tree") if a in dicts]


class TreeForm(NamedTuple):
    """A container whose tensors are found without a walk.

    Attributes:
        optional: whether None may stand in its place.
        cls: its class; dict for a record whose class is one, or that has none.
        fields: names and types of a record's fields; empty for a dict with any keys.
        absent: whether a dict's values may be None.
    """

    optional: bool
    cls: type
    fields: tuple[tuple[str, str], ...] = ()
    absent: bool = False


def form_of(schema_type: Type) -> TreeForm | None:
    """Give the form of a type's values, or None if they are found by a walk."""
    optional = isinstance(schema_type, OptionalType)
    if isinstance(schema_type, OptionalType):
        schema_type = schema_type.elem
    if isinstance(schema_type, DictType):
        if schema_type.key != STR or schema_type.value not in {TENSOR, OPT_TENSOR}:
            return None
        return TreeForm(optional, dict, (), schema_type.value != TENSOR)
    if not isinstance(schema_type, RecordType):
        return None
    fields = tuple([(name, str(t)) for name, t in schema_type.fields])
    if all(_is_plain(text) and name.isascii() and not iskeyword(name) for name, text in fields):
        return TreeForm(optional, class_of(schema_type) or dict, fields)
    return None


def class_of(schema_type: Type) -> type | None:
    """Give the class of a record that is no dict."""
    cls = schema_type.cls if isinstance(schema_type, RecordType) else None
    return None if cls is None or issubclass(cls, dict) else cls


def _is_plain(text: str) -> bool:
    return text.removesuffix("?") in EXACT or text in {"Tensor", "Tensor?"}


def _reader(schema_type: Type) -> Reader:
    form = form_of(schema_type)
    if form is None:
        return _unread
    lines = _record_lines(form) if form.fields else _dict_lines(form)
    if form.optional:
        lines = ["if v is None: return []", *lines]
    text = "\n".join(["def f(v):", *indent(lines)])
    return make_function(text, {"Tensor": PARTS.Tensor, "cls": form.cls}, "tensors_in", ())


def _unread(value: Any) -> None:
    """Leave any value to the walk."""


def _dict_lines(form: TreeForm) -> list[str]:
    odd = f"x.__class__ is not Tensor{' and x is not None' if form.absent else ''}"
    present = "return [x for x in v.values() if x is not None]"
    return [
        "if v.__class__ is not dict: return None",
        "for k, x in v.items():",
        f"    if k.__class__ is not str or {odd}: return None",
        present if form.absent else "return [*v.values()]",
    ]


def _record_lines(form: TreeForm) -> list[str]:
    if form.cls is dict:
        is_odd, field = f"v.__class__ is not dict or len(v) != {len(form.fields)}", "v[{!r}]"
    else:
        is_odd, field = "v.__class__ is not cls", "v.{}"
    reads = [f"x{i} = {field.format(name)}" for i, (name, _) in enumerate(form.fields)]
    lines = [
        f"if {is_odd}: return None",
        "try:",
        *indent(reads),
        "except (AttributeError, KeyError): return None",
    ]
    optional = []
    for i, (_, text) in enumerate(form.fields):
        x, plain = f"x{i}", text.removesuffix("?")
        odd = f"{x}.__class__ is not Tensor" if plain == "Tensor" else odd_text(x, plain)
        here = f"{x} is not None and ({odd})" if text != plain else odd
        lines.append(f"if {here}: return None")
        optional += [i] if text == "Tensor?" else []
    tensors = ", ".join(f"x{i}" for i, (_, text) in enumerate(form.fields) if text == "Tensor")
    more = [f"if x{i} is not None: t.append(x{i})" for i in optional]
    return [*lines, f"t = [{tensors}]", *more, "return t"]
