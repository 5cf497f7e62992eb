"""A graph as text: to read (`str(graph)`), and as Python that runs (`GraphModule.code`).

Both are one writer with two ways to spell what is not a node. For reading, a
target is its label and a constant its `repr`. For running, each target and
each constant that Python has no literal for is bound to a global name.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, Protocol

from polyop.dispatch.operator import OperatorBase
from polyop.graph.constants import is_literal
from polyop.graph.node import (
    CALL_METHOD,
    CALL_MODULE,
    GET_ATTR,
    OUTPUT,
    PLACEHOLDER,
    Node,
    callable_name,
    called,
    identifier,
    label,
    parts_of,
)
from polyop.schema.opaque import is_value, python_text


class Spelling(Protocol):
    """How targets and constants are written."""

    def target(self, target: Any) -> str:
        """Write a callable."""

    def constant(self, value: Any) -> str:
        """Write a value that is neither a node nor a container."""


class Reading:
    """Writes for a reader."""

    def target(self, target: Any) -> str:
        """Give the label of a callable."""
        return label(target)

    def constant(self, value: Any) -> str:
        """Give the `repr` of a value, the label of an operator, the text of an opaque value."""
        if isinstance(value, OperatorBase):
            return label(value)
        return python_text(value)[0] if is_value(value) else repr(value)


class Binding:
    """Writes for Python, and keeps the globals that the text needs in `scope`."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.scope: dict[str, Any] = {}
        self._spelled: dict[int, str] = {}
        # A local name would hide a global one, and nodes' names stay as they are.
        self._locals = {"self", "forward", *(n.name for n in nodes)}

    def target(self, target: Any) -> str:
        """Give the name under which a callable is bound."""
        key = id(target)
        if key not in self._spelled:
            self._spelled[key] = self._place(target)
        return self._spelled[key]

    def constant(self, value: Any) -> str:
        """Write a literal, or the name of a bound value."""
        if is_literal(value):
            return repr(value)
        key = id(value)
        if key not in self._spelled:
            text = self._value_text(value) if is_value(value) else ""
            self._spelled[key] = text or self._bind(constant_name(value), value)
        return self._spelled[key]

    def _value_text(self, value: Any) -> str:
        """Write an opaque value as Python, and bind the names in that; nothing if one is taken."""
        text, names = python_text(value)
        taken = self._locals & names.keys()
        if taken or any(self.scope.get(k, v) is not v for k, v in names.items()):
            return ""
        self.scope.update(names)
        return text

    def _place(self, target: Any) -> str:
        """Bind a callable by its dotted label, or by its last part if that is taken."""
        root, *path = label(target, full=True).split(".")
        if path and all(is_name(part) for part in (root, *path)):
            while root in self._locals:
                root += "_"
            if self._hang(root, path, target):
                return ".".join([root, *path])
        return self._bind(callable_name(target), called(target))

    def _hang(self, root: str, path: list[str], target: Any) -> bool:
        room = self.scope.setdefault(root, SimpleNamespace())
        for part in path[:-1]:
            if type(room) is SimpleNamespace:
                room = vars(room).setdefault(part, SimpleNamespace())
        if type(room) is not SimpleNamespace or path[-1] in vars(room):
            return False
        setattr(room, path[-1], called(target))
        return True

    def _bind(self, base: str, value: Any) -> str:
        name = base = identifier(base)
        number = 0
        while name in self._locals or name in self.scope:
            number += 1
            name = f"{base}_{number}"
        self.scope[name] = value
        return name


READING = Reading()


def is_name(text: str) -> bool:
    """Say whether a text can stand as a Python name."""
    return text.isidentifier() and not keyword.iskeyword(text)


def constant_name(value: Any) -> str:
    """Give a short name for a bound constant: its text if that is a name, or its type."""
    if isinstance(value, type):
        return value.__name__
    text = str(value) if len(type(value).__name__) < 32 and not callable(value) else ""
    return text if is_name(text) else type(value).__name__.lower()


# -- values and calls ---------------------------------------------------------


def spell(value: Any, spelling: Spelling) -> str:
    """Write an argument."""
    if isinstance(value, Node):
        return value.name
    if isinstance(value, dict):
        items = (f"{spelling.constant(k)}: {spell(v, spelling)}" for k, v in value.items())
        return "{" + ", ".join(items) + "}"
    if not isinstance(value, (tuple, list, slice)):
        return spelling.constant(value)
    inside = ", ".join(spell(v, spelling) for v in parts_of(value))
    if isinstance(value, list):
        return f"[{inside}]"
    if isinstance(value, slice) or hasattr(value, "_fields"):
        return f"{spelling.target(type(value))}({inside})"
    return f"({inside},)" if len(value) == 1 else f"({inside})"


def spell_path(path: str) -> str:
    """Write the way to an attribute of the owning module."""
    text = "self"
    for part in path.split("."):
        text = f"{text}.{part}" if is_name(part) else f"getattr({text}, {part!r})"
    return text


def spell_call(node: Node, spelling: Spelling) -> str:
    """Write what a node computes."""
    args = [spell(a, spelling) for a in node.args]
    if node.op == GET_ATTR:
        return spell_path(str(node.target))
    if node.op == CALL_METHOD and args:
        owner = args.pop(0)
        simple = isinstance(node.args[0], Node)
        callee = f"{owner if simple else f'({owner})'}.{node.target}"
    elif node.op == CALL_MODULE:
        callee = spell_path(str(node.target))
    else:
        callee = spelling.target(node.target)
    args += [f"{k}={spell(v, spelling)}" for k, v in node.kwargs.items() if is_name(k)]
    odd = {k: v for k, v in node.kwargs.items() if not is_name(k)}
    args += [f"**{spell(odd, spelling)}"] if odd else []
    return f"{callee}({', '.join(args)})"


def describe(val: Any) -> str:
    """Write what is known of a result, such as `f32[3, s0]`; nothing if it is no array."""
    if isinstance(val, (tuple, list)):
        parts = [describe(v) for v in val]
        return f"({', '.join(p or '?' for p in parts)})" if any(parts) else ""
    shape, dtype = getattr(val, "shape", None), getattr(val, "dtype", None)
    if shape is None or dtype is None:
        return ""
    return f"{short_dtype(dtype)}[{', '.join(str(n) for n in shape)}]"


def short_dtype(dtype: Any) -> str:
    """Write a dtype in a few letters: `f32`, `i64`, `bf16`."""
    name = str(getattr(dtype, "name", dtype)).rpartition(".")[2]
    for long, short in (("bfloat", "bf"), ("float", "f"), ("uint", "u"), ("int", "i")):
        if name.startswith(long):
            return name.replace(long, short, 1)
    return name.replace("complex", "c", 1)


# -- lines and programs -------------------------------------------------------


def line_of(node: Node) -> str:
    """Write one node as a line of `str(graph)`."""
    note = describe(getattr(node, "val", None))
    name = f"{node.name}: {note}" if note else node.name
    if node.op == PLACEHOLDER:
        return name
    if node.op == OUTPUT:
        return f"return {spell(node.args[0], READING) if node.args else None}"
    return f"{name} = {spell_call(node, READING)}"


def graph_text(nodes: Iterable[Node]) -> str:
    """Write a graph for a reader."""
    listed = list(nodes)
    for node in listed:
        _ = node.name  # in order, so that the same graph has the same text
    inputs = ", ".join(line_of(n) for n in listed if n.op == PLACEHOLDER)
    body = [f"    {line_of(n)}" for n in listed if n.op != PLACEHOLDER]
    return "\n".join([f"graph({inputs}):", *body])


def code_lines(nodes: Iterable[Node], spelling: Spelling) -> Iterator[str]:
    """Write the body of a Python function, a line for each node."""
    for node in nodes:
        note = describe(getattr(node, "val", None))
        if node.op == PLACEHOLDER and note:
            yield f"# {node.name}: {note}"
        elif node.op == OUTPUT:
            yield f"return {spell(node.args[0], spelling) if node.args else None}"
        elif node.op != PLACEHOLDER:
            text = f"{node.name} = {spell_call(node, spelling)}"
            yield f"{text}  # {note}" if note else text


def graph_code(nodes: Iterable[Node]) -> tuple[str, dict[str, Any]]:
    """Write a graph as a Python function `forward`, and give the globals that it needs."""
    listed = list(nodes)
    binding = Binding(listed)
    inputs = ", ".join(["self", *(n.name for n in listed if n.op == PLACEHOLDER)])
    body = [f"    {line}" for line in code_lines(listed, binding)]
    if not any(n.op not in (PLACEHOLDER,) for n in listed):
        body.append("    pass")
    return "\n".join([f"def forward({inputs}):", *body]) + "\n", binding.scope
