"""The graph: nodes in the order in which they run.

A doubly linked list behind a `root` that is no node of the program, with the
end in `last`. A tracer appends with four stores and no call (PERFORMANCE
section 9); therefore nothing else (a length, an index, a name) is kept per
node, and the `next` of the last node may be empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from polyop.errors import GraphError, nearest
from polyop.graph.lint import check_nodes
from polyop.graph.node import (
    CALL_FUNCTION,
    CALL_METHOD,
    CALL_MODULE,
    GET_ATTR,
    KINDS,
    OUTPUT,
    PLACEHOLDER,
    Node,
    base_name,
    identifier,
    inputs_of,
    make_node,
    map_nodes,
)
from polyop.graph.text import graph_text, line_of


class Graph:
    """A captured program.

    Example:
        >>> import operator
        >>> graph = Graph()
        >>> x = graph.placeholder("x")
        >>> _ = graph.output(graph.call_function(operator.mul, (x, 2)))
        >>> print(graph)
        graph(x):
            mul = operator.mul(x, 2)
            return mul
    """

    __slots__ = ("__weakref__", "_names", "_point", "last", "root")
    root: Node
    last: Node

    def __init__(self) -> None:
        self.root = self.last = make_node("root", "", (), {})
        self.root.graph = self
        self._names: dict[str, int] = {}
        self._point: Node | None = None

    # -- reading --------------------------------------------------------------

    @property
    def nodes(self) -> NodeList:
        """Give the nodes in order; the one at hand may be erased on the way."""
        return NodeList(self)

    @property
    def placeholders(self) -> list[Node]:
        """List the inputs, in order."""
        return [node for node in self.nodes if node.op == PLACEHOLDER]

    @property
    def output_node(self) -> Node | None:
        """Give the node of the result, if the graph has one."""
        return next((n for n in reversed(self.nodes) if n.op == OUTPUT), None)

    def __str__(self) -> str:
        return graph_text(self.nodes)

    def lint(self, module: Any = None) -> None:
        """Verify the graph, with the attributes of `module` where it is given.

        Raises:
            GraphError: with the node and its line, for the first thing wrong.
        """
        check_nodes(self, list(self.nodes), module)

    # -- making nodes ---------------------------------------------------------

    def placeholder(self, name: str) -> Node:
        """Add an input."""
        return self.create_node(PLACEHOLDER, name)

    def get_attr(self, qualname: str) -> Node:
        """Add a read of an attribute of the owning module."""
        return self.create_node(GET_ATTR, qualname)

    def call_function(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Node:
        """Add a call of a function or operator."""
        if not callable(target):
            raise GraphError("the target of call_function is not callable", seen=repr(target))
        return self.create_node(CALL_FUNCTION, target, args, kwargs)

    def call_method(
        self, method: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Node:
        """Add a call of a method of `args[0]`."""
        return self.create_node(CALL_METHOD, method, args, kwargs)

    def call_module(
        self, qualname: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Node:
        """Add a call of an attribute of the owning module."""
        return self.create_node(CALL_MODULE, qualname, args, kwargs)

    def output(self, result: Any) -> Node:
        """Add the result: nodes and constants in any nesting."""
        return self.create_node(OUTPUT, "output", (result,))

    def create_node(
        self,
        op: str,
        target: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        name: str | None = None,
        val: Any = None,
    ) -> Node:
        """Add a node of any kind, at the end or where `inserting_before` says."""
        if op not in KINDS:
            raise GraphError(f"{op!r} is no kind of node{nearest(op, KINDS)}", declared=KINDS)
        node = make_node(op, target, tuple(args), dict(kwargs or {}))
        node.val = val
        self._check_inputs(node)
        if name is not None:
            node.name_ = self._free_name(name)
        for given in inputs_of(node):
            given.users[node] = None
        if self._point is None:
            self.append(node)
        else:
            self.insert_before(self._point, node)
        return node

    def node_copy(self, node: Node, find: Callable[[Node], Any]) -> Node:
        """Add a copy of a node, with `find(input)` for each of its inputs."""
        args, kwargs = map_nodes(find, node.args), map_nodes(find, node.kwargs)
        copied = self.create_node(node.op, node.target, args, kwargs, val=node.val)
        if hasattr(node, "source"):
            copied.source = node.source
        if hasattr(node, "name_"):
            copied.name_ = self._free_name(node.name_)
        return copied

    def copy(self, copies: dict[Node, Any] | None = None) -> Graph:
        """Copy the graph; `copies` receives the new node of each old one."""
        fresh = Graph()
        found = {} if copies is None else copies
        for node in self.nodes:
            found[node] = fresh.node_copy(node, found.__getitem__)
        return fresh

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> Graph:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        # In rows: nodes hold each other in chains, which may be long.
        stand_ins = {node: Node() for node in self.nodes}
        rows = []
        for node, stand_in in stand_ins.items():
            args, kwargs = (map_nodes(stand_ins.__getitem__, x) for x in (node.args, node.kwargs))
            more = {n: getattr(node, n) for n in ("val", "source", "name_") if hasattr(node, n)}
            rows.append((stand_in, node.op, node.target, args, kwargs, more))
        return _graph_of, (rows,)

    def inline(self, other: Graph, *inputs: Any) -> Any:
        """Add the nodes of `other` with `inputs` for its placeholders, and give its result."""
        found: dict[Node, Any] = dict(zip(other.placeholders, inputs, strict=True))
        for node in other.nodes:
            if node.op == OUTPUT:
                return map_nodes(found.__getitem__, node.args[0])
            if node not in found:
                found[node] = self.node_copy(node, found.__getitem__)
        return None

    # -- links ----------------------------------------------------------------

    def append(self, node: Node) -> None:
        """Put a node at the end."""
        last = self.last
        node.graph = self
        node.prev = last
        last.next = node
        self.last = node

    def insert_before(self, at: Node, node: Node) -> None:
        """Put a node in front of another."""
        self._check_here(at)
        before = at.prev
        node.graph = self
        node.prev, node.next = before, at
        before.next = at.prev = node

    def insert_after(self, at: Node, node: Node) -> None:
        """Put a node behind another."""
        if at is self.last:
            self.append(node)
        else:
            self.insert_before(at.next, node)

    def move_after(self, at: Node, node: Node) -> None:
        """Put a node that is in this graph behind another one."""
        self._check_here(node)
        self._unlink(node)
        self.insert_after(at, node)

    def erase_node(self, node: Node) -> None:
        """Take out a node that nobody reads.

        Raises:
            GraphError: if a node reads it, or it is in another graph.
        """
        self._check_here(node)
        if node.users:
            readers = ", ".join(user.name for user in node.users)
            raise GraphError(
                f"node {node.name} cannot be erased: {readers} read it",
                seen=line_of(node),
                fix="replace its uses first: node.replace_all_uses_with(other)",
            )
        for given in inputs_of(node):
            given.users.pop(node, None)
        self._unlink(node)

    def _unlink(self, node: Node) -> None:
        before = node.prev
        after = None if node is self.last else node.next
        if self._point is node:
            self._point = after
        if after is None:
            self.last = before
            del before.next
        else:
            before.next, after.prev = after, before
        # It keeps `prev`: an iteration that stands on it finds its way back.
        node.graph = None

    @contextmanager
    def inserting_before(self, node: Node) -> Iterator[None]:
        """Put new nodes in front of `node` inside a `with` block."""
        self._check_here(node)
        previous, self._point = self._point, node
        try:
            yield
        finally:
            self._point = previous

    @contextmanager
    def inserting_after(self, node: Node) -> Iterator[None]:
        """Put new nodes behind `node` inside a `with` block, in the order of their making."""
        self._check_here(node)
        previous = self._point
        self._point = None if node is self.last else node.next
        try:
            yield
        finally:
            self._point = previous

    # -- names and checks -----------------------------------------------------

    def give_name(self, node: Node) -> str:
        """Name a node after its operator or argument, and keep the name."""
        node.name_ = self._free_name(base_name(node))
        return node.name_

    def _free_name(self, wanted: str) -> str:
        base = name = identifier(wanted)
        while name in self._names:
            number = self._names[base] = self._names[base] + 1
            name = f"{base}_{number}"
        self._names[name] = 0
        return name

    def _check_here(self, node: Node) -> None:
        if node.graph is not self or node is self.root:
            raise GraphError(f"node {node.name} is not in this graph", seen=line_of(node))

    def _check_inputs(self, node: Node) -> None:
        for given in inputs_of(node):
            if given.graph is not self:
                raise GraphError(
                    f"an argument of {base_name(node)} is a node of another graph: {given.name}",
                    seen=line_of(given),
                    fix="copy it here first: graph.node_copy(node, find)",
                )


class NodeList:
    """The nodes of a graph, in order or reversed."""

    __slots__ = ("_graph",)

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __iter__(self) -> Iterator[Node]:
        graph, node = self._graph, self._graph.root
        while node is not graph.last:
            node = node.next
            yield node
            node = _standing(node)

    def __reversed__(self) -> Iterator[Node]:
        graph, node = self._graph, self._graph.last
        while node is not graph.root:
            yield node
            node = _standing(node.prev)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(list(self))


def _standing(node: Node) -> Node:
    """Give the node, or the nearest one before it that was not erased."""
    while node.graph is None:
        node = node.prev
    return node


def _graph_of(rows: list[tuple[Any, ...]]) -> Graph:
    """Make the graph of a pickle."""
    graph, found = Graph(), dict[Node, Node]()
    for stand_in, op, target, args, kwargs, more in rows:
        inputs = [map_nodes(found.__getitem__, x) for x in (args, kwargs)]
        node = found[stand_in] = graph.create_node(
            op, target, *inputs, name=more.pop("name_", None)
        )
        for name, value in more.items():
            setattr(node, name, value)
    return graph
