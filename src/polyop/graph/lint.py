"""The verifier: what a well-formed graph is, and the first node that is not.

Each check is a function of one node; the order of the checks is the order in
which the later ones may rely on the earlier.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from polyop.errors import GraphError, an, nearest
from polyop.graph.node import (
    CALL_FUNCTION,
    CALL_MODULE,
    GET_ATTR,
    KINDS,
    OUTPUT,
    PLACEHOLDER,
    Node,
    collect,
    inputs_of,
    label,
)
from polyop.graph.text import line_of
from polyop.schema.types import ListType, OptionalType
from polyop.schema.values import fits

STRINGS = frozenset(KINDS) - {CALL_FUNCTION}


@dataclass(frozen=True)
class Seen:
    """What the walk has met: the nodes, their names, and who reads each."""

    graph: Any
    module: Any
    readers: dict[Node, set[Node]] = field(default_factory=dict)
    names: dict[str, Node] = field(default_factory=dict)


def check_nodes(graph: Any, nodes: list[Node], module: Any = None) -> None:
    """Verify the nodes of a graph, each in the light of those before it."""
    seen = Seen(graph, module)
    previous = graph.root
    for node in nodes:
        check_links(node, previous, seen)
        check_name(node, seen)
        check_inputs(node, seen)
        check_target(node, seen)
        check_arguments(node)
        seen.readers[node] = set()
        previous = node
    for node in nodes:
        check_users(node, seen.readers[node])
    check_output(nodes)


def refuse(node: Node, what: str, fix: str = "") -> NoReturn:
    """Say what is wrong with a node, with its line."""
    raise GraphError(
        f"node {node.name}: {what}",
        op=label(node.target) if callable(node.target) else "",
        seen=line_of(node),
        source=getattr(node, "source", None) or "",
        fix=fix,
    )


def check_links(node: Node, previous: Node, seen: Seen) -> None:
    """Verify that the list reads the same in both directions."""
    if node.graph is not seen.graph or node.prev is not previous:
        refuse(node, "is linked wrongly", "use Graph.insert_before or Graph.append")
    if node.op not in KINDS:
        refuse(node, f"{node.op!r} is no kind of node{nearest(node.op, KINDS)}")


def check_name(node: Node, seen: Seen) -> None:
    """Verify that no other node has this name."""
    other = seen.names.setdefault(node.name, node)
    if other is not node:
        refuse(node, f"its name is also that of: {line_of(other)}")


def check_inputs(node: Node, seen: Seen) -> None:
    """Verify that every argument is defined before it is read."""
    for given in inputs_of(node):
        if given.graph is not seen.graph:
            refuse(node, f"reads {given.name}, which is not in this graph")
        if given not in seen.readers:
            refuse(node, f"reads {given.name} before it is defined")
        seen.readers[given].add(node)


def check_users(node: Node, readers: set[Node]) -> None:
    """Verify that the users of a node are those that read it."""
    users = set(node.users)
    if users != readers:
        wrong = ", ".join(sorted(n.name for n in users ^ readers))
        refuse(node, f"its users do not match who reads it: {wrong}", "use Node.set_args")


def check_target(node: Node, seen: Seen) -> None:
    """Verify that the target is a callable, a name, or an attribute that exists."""
    if node.op == CALL_FUNCTION and not callable(node.target):
        refuse(node, f"its target {node.target!r} is not callable")
    if node.op in STRINGS and not isinstance(node.target, str):
        refuse(node, f"its target {node.target!r} is not a name")
    if seen.module is not None and node.op in (GET_ATTR, CALL_MODULE):
        check_attribute(node, seen.module)


def check_attribute(node: Node, module: Any) -> None:
    """Verify that the owning module has what a node asks it for."""
    for part in node.target.split("."):
        if not hasattr(module, part):
            near = nearest(part, vars(module)) if hasattr(module, "__dict__") else ""
            refuse(node, f"the module has no attribute {node.target!r}{near}")
        module = getattr(module, part)
    if node.op == CALL_MODULE and not callable(module):
        refuse(node, f"the attribute {node.target!r} is not callable")


def check_arguments(node: Node) -> None:
    """Count the arguments of an operator against its schema."""
    if node.op in (PLACEHOLDER, GET_ATTR) and (node.args or node.kwargs):
        refuse(node, f"{an(node.op)} takes no arguments")
    schema = getattr(node.target, "_schema", None)
    if node.op != CALL_FUNCTION or schema is None or getattr(schema, "is_vararg", False):
        return
    declared = [a.name for a in schema.arguments]
    places = [a.name for a in schema.arguments if not a.kwarg_only]
    if len(node.args) > len(places):
        refuse(node, f"takes {len(places)} positional arguments, not {len(node.args)}: {schema}")
    given = places[: len(node.args)]
    check_keywords(node, declared, given)
    needed = [a.name for a in schema.arguments if not a.has_default_value()]
    missing = set(needed) - set(given) - set(node.kwargs)
    if missing:
        refuse(node, f"misses {listed(needed, missing)}: {schema}")
    check_types(node, dict(zip(given, node.args, strict=True)) | node.kwargs)


def check_types(node: Node, values: dict[str, Any]) -> None:
    """Verify that what a graph gives as it is fits the types of the schema."""
    schema = node.target._schema
    for argument in schema.arguments:
        if argument.name in values and not may_be(argument.type, values[argument.name]):
            seen = f"{values[argument.name]!r:.80}"
            refuse(node, f"gets {seen} for {argument.type} {argument.name}: {schema}")


def may_be(schema_type: Any, value: Any) -> bool:
    """Tell whether a value fits a type; what a node gives shows when it runs."""
    found: dict[Node, None] = {}
    collect(value, found)
    if not found:
        return fits(schema_type, value)
    if isinstance(schema_type, OptionalType):
        return value is None or may_be(schema_type.elem, value)
    if isinstance(schema_type, ListType) and isinstance(value, (list, tuple)):
        return all(may_be(schema_type.elem, item) for item in value)
    return True


def check_keywords(node: Node, declared: list[str], given: list[str]) -> None:
    """Verify that each keyword is declared, and not given by position too."""
    for name in node.kwargs:
        if name not in declared:
            refuse(node, f"has no argument {name!r}{nearest(name, declared)}")
        if name in given:
            refuse(node, f"gets the argument {name!r} twice")


def listed(order: Iterable[str], names: set[str]) -> str:
    """Join names in the order of the schema."""
    return ", ".join(name for name in order if name in names)


def check_output(nodes: list[Node]) -> None:
    """Verify that there is one output, that it stands last, and has one argument."""
    outputs = [node for node in nodes if node.op == OUTPUT]
    if not outputs:
        raise GraphError("the graph has no output", fix="end it with graph.output(result)")
    if len(outputs) > 1:
        refuse(outputs[1], "is a second output")
    if outputs[0] is not nodes[-1]:
        refuse(outputs[0], f"the output is not last; behind it stands: {line_of(nodes[-1])}")
    if len(outputs[0].args) != 1:
        refuse(outputs[0], "an output has one argument, the result")
