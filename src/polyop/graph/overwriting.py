"""Copies and new memory saved: where nobody needs an old value, it is written over (SPEC S210).

A call that makes a changed copy of a tensor may write the tensor instead if
that is memory which the program made, and which nothing reads afterwards: no
later call, no other argument of the same call, no view, and not the caller.
What may share memory is told by the schemas; a callable without one may give
back any of its arguments.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from polyop.graph.graph import Graph
from polyop.graph.node import (
    CALL_FUNCTION,
    GET_ATTR,
    OUTPUT,
    PLACEHOLDER,
    Node,
    collect,
    inputs_of,
    map_nodes,
)
from polyop.graph.purity import is_impure
from polyop.schema.tags import Tag

CLONED = "_only_clone_these_bases"


class Writers(NamedTuple):
    """The operators that may stand for others.

    Attributes:
        clone: the operator that copies.
        copy: the operator that writes a tensor over another.
        inplace: by operator, the one that writes the same to its first argument.
        views: by the operator that puts a part into a copy, the one that gives the part.
    """

    clone: Any
    copy: Any
    inplace: Mapping[Any, Any]
    views: Mapping[Any, Any]


def reinplace(graph: Graph, writers: Writers) -> int:
    """Let calls write tensors that are not needed any more, and count those that do now.

    Copies are taken out, operators become those that write, and calls on bases
    name in `_only_clone_these_bases` what they still must copy. Inputs and
    attributes are never written, nor is what an author's operator made.

    Args:
        graph: it is changed in place.
        writers: the operators.
    """
    memory = Memory(graph)
    saved = 0
    for node in graph.nodes:
        change = _change_for(node, writers)
        saved += 0 if change is None else change(node, memory, writers)
    return saved


Change = Callable[[Node, "Memory", Writers], int]


def _change_for(node: Node, writers: Writers) -> Change | None:
    if node.op != CALL_FUNCTION:
        return None
    if node.target is writers.clone:
        return _drop_copy
    if node.target in writers.inplace:
        return _write_first
    if node.target in writers.views:
        return _write_part
    # A call on bases says itself which of them its results are.
    return _spare_bases if "_all_bases" in node.kwargs else None


def _drop_copy(node: Node, memory: Memory, writers: Writers) -> int:
    source = node.args[0]
    if not memory.is_free(source, node) or not same_layout(source, node):
        return 0
    memory.join(source, node)
    node.replace_all_uses_with(source)
    node.graph.erase_node(node)
    return 1


def _write_first(node: Node, memory: Memory, writers: Writers) -> int:
    first = node.args[0] if node.args else None
    if not isinstance(first, Node) or not memory.is_free(first, node):
        return 0
    if not same_layout(first, node) or not is_ordered(first):
        return 0
    memory.join(first, node)
    node.target = writers.inplace[node.target]
    return 1


def _write_part(node: Node, memory: Memory, writers: Writers) -> int:
    if len(node.args) < 2:
        return 0
    base, part, *statics = node.args
    if not memory.is_free(base, node) or not is_ordered(base) or not same_layout(base, node):
        return 0
    if not isinstance(part, Node) or part.val is None or part.val.dtype != base.val.dtype:
        return 0
    graph = node.graph
    with graph.inserting_before(node):
        view = graph.create_node(
            CALL_FUNCTION, writers.views[node.target], (base, *statics), node.kwargs, val=part.val
        )
        graph.create_node(CALL_FUNCTION, writers.copy, (view, part), val=part.val)
    memory.join(base, node)
    node.replace_all_uses_with(base)
    graph.erase_node(node)
    return 1


def _spare_bases(node: Node, memory: Memory, writers: Writers) -> int:
    bases = node.kwargs["_all_bases"]
    cloned = list(node.kwargs.get(CLONED, range(len(bases))))
    free = [
        i
        for i in cloned
        if isinstance(bases[i], Node) and memory.is_free(bases[i], node) and is_ordered(bases[i])
    ]
    if not free:
        return 0
    kept = [i for i in cloned if i not in free]
    node.set_args(node.args, {**node.kwargs, CLONED: kept})
    for i in free:
        memory.join(bases[i], node)
    return len(free)


# -- layouts ------------------------------------------------------------------


def _facts(node: Any) -> Any:
    val = node.val
    if getattr(val, "strides", None) is None:
        return None
    return (tuple(val.shape), val.dtype, tuple(val.strides), val.device)


def same_layout(a: Node, b: Node) -> bool:
    """Tell whether two values are known to have one shape, dtype, strides and device."""
    facts = _facts(a)
    return facts is not None and facts == _facts(b)


def is_ordered(node: Node) -> bool:
    """Tell whether the elements of a value are known to lie in order, each for itself."""
    return bool(getattr(node.val, "is_contiguous", False))


# -- memory -------------------------------------------------------------------


class Memory:
    """Which nodes may share memory, where it is read last, and whether it is the program's own.

    Nodes that may share memory are one group (a union-find forest).
    """

    def __init__(self, graph: Graph) -> None:
        self._parent: dict[Node, Node] = {}
        self._foreign: set[Node] = set()
        self._last: dict[Node, int] = {}
        self._place: dict[Node, int] = {}
        for place, node in enumerate(graph.nodes):
            self._add(node, place)

    def _add(self, node: Node, place: int) -> None:
        self._parent[node] = node
        self._place[node] = place
        self._last[node] = place
        if is_foreign(node):
            self._foreign.add(node)
        keeps = may_keep(node)
        for given in inputs_of(node):
            root = self._root(given)
            self._last[root] = max(self._last[root], place)
            if keeps:
                self._foreign.add(root)
        for given in aliased_inputs(node):
            self.join(given, node)

    def _root(self, node: Node) -> Node:
        parent = self._parent
        while parent[node] is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(self, a: Node, b: Node) -> None:
        """Note that two nodes may share memory."""
        a, b = self._root(a), self._root(b)
        if a is b:
            return
        self._parent[b] = a
        self._last[a] = max(self._last[a], self._last.pop(b))
        if b in self._foreign:
            self._foreign.add(a)

    def is_free(self, value: Any, node: Node) -> bool:
        """Tell whether a call may write one of its arguments instead of a copy."""
        if not isinstance(value, Node):
            return False
        root = self._root(value)
        if root in self._foreign or self._last[root] > self._place[node]:
            return False
        # Nor may it be read by the same call under another name, or twice.
        return sum(self._root(x) is root for x in _reads(node)) == 1


def _reads(node: Node) -> Iterator[Node]:
    """Give each read of a node among the arguments."""
    found: list[Node] = []
    map_nodes(lambda x: found.append(x) or x, (node.args, node.kwargs))  # type: ignore[func-returns-value]
    yield from found


def is_foreign(node: Node) -> bool:
    """Tell whether the memory of a result may be somebody else's, or not to be written.

    What an author's kernel gives is new to us, but he may keep it, or have made it read-only.
    """
    if node.op != CALL_FUNCTION:
        return node.op != OUTPUT
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.target is not operator.getitem
    own = getattr(node.target, "is_builtin", False)
    return not own and not all(r.alias_info is not None for r in schema.returns)


def may_keep(node: Node) -> bool:
    """Tell whether a call may hold on to its arguments: one with an effect beside its writes."""
    if node.op in (PLACEHOLDER, GET_ATTR, OUTPUT) or not is_impure(node):
        return False
    schema = getattr(node.target, "_schema", None)
    random = Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return schema is None or not (schema.is_mutable or random)


def aliased_inputs(node: Node) -> Sequence[Node]:
    """Give the inputs whose memory the result of a node may be."""
    if node.op in (PLACEHOLDER, GET_ATTR, OUTPUT):
        return ()
    own = getattr(node.target, "aliased_inputs", None)
    if own is not None:
        return [given for given in own(node) if isinstance(given, Node)]
    schema = getattr(node.target, "_schema", None)
    maybe = Tag.maybe_aliasing_or_mutating in getattr(node.target, "tags", ())
    if node.op != CALL_FUNCTION or schema is None or maybe or _is_wild(schema):
        return list(inputs_of(node))
    returned = [r.alias_info.before_set for r in schema.returns if r.alias_info is not None]
    found: dict[Node, None] = {}
    for i, argument in enumerate(schema.arguments):
        info = argument.alias_info
        if info is not None and any(info.before_set & names for names in returned):
            value = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            collect(value, found)
    return list(found)


def _is_wild(schema: Any) -> bool:
    """Tell whether an alias set changes in a call, or may be any."""
    infos = [a.alias_info for a in (*schema.arguments, *schema.returns)]
    return any(
        info is not None
        and ("*" in info.before_set | info.after_set or info.before_set != info.after_set)
        for info in infos
    )
