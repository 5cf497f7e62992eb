"""A node: one call of a captured program.

A tracer makes thousands of them, so a node has slots and no `__init__` (a
constructor costs a frame, PERFORMANCE section 9). Whoever makes one fills
`op`, `target`, `args`, `kwargs`, `val`, `users`, `graph` and the links;
`source` and `name_` may stay empty, and so may the `next` of a graph's last.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Callable
from typing import Any, Protocol

from polyop.dispatch.operator import OperatorBase

PLACEHOLDER = "placeholder"
GET_ATTR = "get_attr"
CALL_FUNCTION = "call_function"
CALL_METHOD = "call_method"
CALL_MODULE = "call_module"
OUTPUT = "output"
#: The kinds of nodes (SPEC S208).
KINDS = (PLACEHOLDER, GET_ATTR, CALL_FUNCTION, CALL_METHOD, CALL_MODULE, OUTPUT)


class Owner(Protocol):
    """What a node needs of the graph that it is in."""

    def give_name(self, node: Node) -> str:
        """Give a name that no other node has."""


class Node:
    """One input, call, attribute or result of a graph.

    Attributes:
        op: the kind, one of `KINDS`.
        target: the callable, or the name of an input, attribute or method.
        args, kwargs: nodes and constants, in tuples, lists, dicts and slices.
        val: what is known of the result: a shape and dtype, or a tree of them.
        users: the nodes that read this one, in the order of their making.
    """

    __slots__ = (
        "__weakref__",
        "args",
        "graph",
        "kwargs",
        "name_",
        "next",
        "op",
        "prev",
        "source",
        "target",
        "users",
        "val",
    )
    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    val: Any
    users: dict[Node, None]
    prev: Node
    next: Node
    graph: Any
    name_: str
    source: Any

    @property
    def name(self) -> str:
        """Give the node's name, which is chosen when it is first asked for."""
        try:
            return self.name_
        except AttributeError:
            owner: Owner | None = self.graph
            return owner.give_name(self) if owner else base_name(self)

    @property
    def all_input_nodes(self) -> list[Node]:
        """List the nodes that this one reads, each once, in order."""
        return list(inputs_of(self))

    def set_args(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        """Replace the arguments, and keep the users of the inputs right."""
        for given in inputs_of(self):
            given.users.pop(self, None)
        self.args = args
        if kwargs is not None:
            self.kwargs = kwargs
        for given in inputs_of(self):
            given.users[self] = None

    def map_inputs(self, fn: Callable[[Node], Any]) -> None:
        """Replace each node among the arguments by `fn` of it."""
        self.set_args(map_nodes(fn, self.args), map_nodes(fn, self.kwargs))

    def replace_input_with(self, old: Node, new: Node) -> None:
        """Read `new` wherever this node reads `old`."""
        self.map_inputs(lambda n: new if n is old else n)

    def replace_all_uses_with(self, other: Node) -> list[Node]:
        """Let every reader of this node read `other`, and give these readers.

        `other` itself keeps reading this node, so that a wrapper can be put
        around a value.
        """
        readers = [user for user in self.users if user is not other]
        for user in readers:
            user.replace_input_with(self, other)
        return readers

    def __repr__(self) -> str:
        return self.name


def make_node(op: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node:
    """Make a node that is in no graph yet."""
    node = Node()
    node.op = op
    node.target = target
    node.args = args
    node.kwargs = kwargs
    node.val = None
    node.users = {}
    node.graph = None
    return node


# -- values around nodes ------------------------------------------------------


def map_nodes(fn: Callable[[Node], Any], value: Any) -> Any:
    """Rebuild an argument with `fn(node)` in the place of each node."""
    if isinstance(value, Node):
        return fn(value)
    if isinstance(value, tuple):
        items = [map_nodes(fn, v) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [map_nodes(fn, v) for v in value]
    if isinstance(value, dict):
        return {k: map_nodes(fn, v) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(map_nodes(fn, v) for v in parts_of(value)))
    return value


def parts_of(value: Any) -> tuple[Any, ...]:
    """Give what a container holds; nothing for any other value."""
    if isinstance(value, (tuple, list)):
        return tuple(value)
    if isinstance(value, dict):
        return tuple(value.values())
    if isinstance(value, slice):
        return (value.start, value.stop, value.step)
    return ()


def collect(value: Any, found: dict[Node, None]) -> None:
    """Add the nodes inside an argument to `found`, in order."""
    if isinstance(value, Node):
        found[value] = None
    elif isinstance(value, (tuple, list, dict, slice)):
        for part in parts_of(value):
            collect(part, found)


def inputs_of(node: Node) -> dict[Node, None]:
    """Give the nodes that a node reads, each once, in order."""
    found: dict[Node, None] = {}
    for arg in node.args:
        if type(arg) is Node:  # nearly always, and every walk comes through here
            found[arg] = None
        else:
            collect(arg, found)
    if node.kwargs:
        collect(node.kwargs, found)
    return found


# -- names --------------------------------------------------------------------


def base_name(node: Node) -> str:
    """Give the name that a node would like to have: its operator's or argument's."""
    if node.op == OUTPUT:
        return "output"
    if isinstance(node.target, str):
        return identifier(node.target)
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return identifier(str(schema.name).rpartition("::")[2])
    return identifier(callable_name(node.target))


def callable_name(target: Any) -> str:
    """Give the short name of a callable; its type's where it has none."""
    return str(getattr(target, "__name__", type(target).__name__)).partition(".")[0]


def called(target: Any) -> Any:
    """Give what a node runs: its target, or what a call of that operator goes on with."""
    return target.onward if isinstance(target, OperatorBase) else target


def identifier(text: str) -> str:
    """Turn a text into a Python identifier that is no keyword and not `self`."""
    name = re.sub(r"\W", "_", text) or "_"
    if name[0].isdigit():
        name = "_" + name
    return name + "_" if keyword.iskeyword(name) or name == "self" else name


def label(target: Any, *, full: bool = False) -> str:
    """Give the dotted name of a callable, with the overload `default` if `full`."""
    if hasattr(target, "_schema"):
        text = str(target)
        return text if full else text.removesuffix(".default")
    module = getattr(target, "__module__", None) or ""
    name = str(getattr(target, "__name__", type(target).__name__))
    if module in ("", "__main__", builtins.__name__) or "<" in name:
        return name
    # Only the last part: a reader knows `operator.getitem`, and needs no full path.
    return f"{module.rpartition('.')[2].lstrip('_')}.{name}"
