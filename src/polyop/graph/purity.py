"""What a pass may assume of a node: purity, writes, and shared storage.

Everything here errs on the side of keeping the program: a callable without a
schema may return its argument, and an impure one may write to all of them.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from polyop.dispatch.operator import OpOverloadPacket
from polyop.dispatch.registry import as_operator
from polyop.graph.node import (
    CALL_FUNCTION,
    CALL_METHOD,
    CALL_MODULE,
    GET_ATTR,
    OUTPUT,
    PLACEHOLDER,
    Node,
    collect,
    inputs_of,
)
from polyop.schema.tags import Tag

Predicate: TypeAlias = Callable[[Node], bool]

#: Functions of the standard library that act on their arguments or the world.
IMPURE_FUNCTIONS: frozenset[Any] = frozenset(
    [
        *(getattr(operator, name) for name in ("setitem", "delitem", "iadd", "isub", "imul")),
        *(getattr(operator, name) for name in ("itruediv", "ifloordiv", "imod", "ipow")),
        *(getattr(operator, name) for name in ("iand", "ior", "ixor", "ilshift", "irshift")),
        *(getattr(operator, name) for name in ("imatmul", "iconcat")),
        *(getattr(builtins, name) for name in ("print", "setattr", "delattr", "next", "input")),
    ]
)


def is_impure(node: Any) -> bool:
    """Say whether a node must stay where it is, even if nobody reads it.

    Args:
        node: a node, or an operator in any form in its place: whether its calls must stay (S198).
    """
    if not isinstance(node, Node):
        return is_impure_target(as_operator(node) if isinstance(node, str) else node)
    if node.op == CALL_FUNCTION:
        own = getattr(node.target, "is_impure_call", None)
        if own is not None:
            return bool(own(node))
        return is_impure_target(node.target) or has_impure_subgraph(node)
    if node.op == CALL_METHOD:
        return is_writing_method(node.target)
    return node.op in (CALL_MODULE, PLACEHOLDER, OUTPUT)


def has_impure_subgraph(node: Node) -> bool:
    """Say whether a call of a higher-order operator gets a graph with an impure node."""
    return any(
        graph is None
        or any(is_impure(inner) for inner in graph.nodes if inner.op not in (PLACEHOLDER, OUTPUT))
        for graph in graphs_given(node)
    )


def graphs_given(node: Node) -> list[Any]:
    """List the graphs that a call of a higher-order operator gets; None for one not known."""
    if getattr(node.target, "namespace", "") != "higher_order":
        return []
    values = [given.val for given in inputs_of(node) if given.op == GET_ATTR]
    return [getattr(v, "graph", None) for v in values if v is None or hasattr(v, "graph")]


def is_unseen(node: Node) -> bool:
    """Say whether a call is impure for nothing but code that no graph shows.

    That code refuses by itself what may not be repeated.
    """
    if getattr(node.target, "refuses_repeats", False):
        return True
    graphs = [] if is_impure_target(node.target) else graphs_given(node)
    if any(graph is None for graph in graphs):
        return False
    acting = [n for graph in graphs for n in graph.nodes if is_write(n)]
    return bool(acting) and all(map(is_unseen, acting))


def is_impure_target(target: Any) -> bool:
    """Say whether a callable writes, draws random numbers or has an effect."""
    target = getattr(target, "_opoverload", target)  # what `custom_op` gave
    if isinstance(target, OpOverloadPacket):
        return any(map(is_impure_target, target.op_overloads()))
    schema = getattr(target, "_schema", None)
    if getattr(target, "is_impure", False) or getattr(schema, "is_mutable", False):
        return True
    if getattr(target, "effect", None) is not None:  # of a higher-order operator
        return True
    try:
        return target in IMPURE_FUNCTIONS
    except TypeError:  # an unhashable callable is none of them
        return False


def is_writing_method(name: str) -> bool:
    """Say whether a method writes to its owner, as `add_` and `__setitem__` do."""
    return name in ("__setitem__", "__delitem__") or (
        name.endswith("_") and not name.endswith("__")
    )


def is_write(node: Node) -> bool:
    """Say whether results from before a node may differ from results after it."""
    return node.op not in (PLACEHOLDER, OUTPUT) and is_impure(node)


# -- storage ------------------------------------------------------------------


def may_alias(node: Node) -> bool:
    """Say whether a result may share storage with an argument."""
    schema = getattr(node.target, "_schema", None)
    if getattr(node.target, "gives_as_graphs", False):
        return any(graph is None or _gives_input(graph) for graph in graphs_given(node))
    if node.op != CALL_FUNCTION or schema is None:
        return True
    if Tag.maybe_aliasing_or_mutating in getattr(node.target, "tags", ()):
        return True
    returns = getattr(schema, "returns", ())
    aliased = any(getattr(r, "alias_info", None) is not None for r in returns)
    return aliased or bool(getattr(schema, "is_view", False))


def _gives_input(graph: Any) -> bool:
    return any(node.op == PLACEHOLDER for node in escaping_nodes(reversed(graph.nodes)))


def writes_to_inputs(node: Node, is_write: Predicate) -> bool:
    """Say whether a node may write to the storage of its arguments."""
    schema = getattr(node.target, "_schema", None)
    # A random draw or an effect with a schema declares what it writes: nothing.
    return is_write(node) and (schema is None or bool(getattr(schema, "is_mutable", True)))


def written_inputs(node: Node) -> Iterable[Node]:
    """Give the inputs that a node which writes may write: those that its schema says, or all."""
    arguments = getattr(getattr(node.target, "_schema", None), "arguments", ())
    written = [i for i, a in enumerate(arguments) if getattr(a.alias_info, "is_write", False)]
    if not written:
        return () if _writes_its_own(node) else inputs_of(node)
    found: dict[Node, None] = {}
    for i in written:
        collect(node.args[i] if i < len(node.args) else node.kwargs.get(arguments[i].name), found)
    return found


def _writes_its_own(node: Node) -> bool:
    """Say whether a node is impure for graphs alone that write nothing that they are given."""
    graphs = [] if is_impure_target(node.target) else graphs_given(node)
    return bool(graphs) and not any(graph is None or _writes_input(graph) for graph in graphs)


def _writes_input(graph: Any) -> bool:
    written = written_nodes(reversed(graph.nodes), is_write)
    return any(node.op in (PLACEHOLDER, GET_ATTR) for node in written)


def storage_of(nodes: Iterable[Node], reads: Callable[[Node], Iterable[Node]]) -> set[Node]:
    """Give the nodes that may share storage with the inputs of nodes that `reads` gives."""
    found: set[Node] = set()
    for node in nodes:  # in reverse order: a view comes before what it looks at
        found.update(reads(node))
        if node in found and may_alias(node):
            found.update(inputs_of(node))
    return found


def written_nodes(reverse: Iterable[Node], is_write: Predicate) -> set[Node]:
    """Give the nodes whose storage may be written to."""
    return storage_of(
        reverse, lambda node: written_inputs(node) if writes_to_inputs(node, is_write) else ()
    )


def escaping_nodes(reverse: Iterable[Node]) -> set[Node]:
    """Give the nodes whose storage a caller may receive."""
    return storage_of(reverse, lambda node: inputs_of(node) if node.op == OUTPUT else ())
