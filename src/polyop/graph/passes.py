"""Graph to graph: dead code, common subexpressions, constants (SPEC S210).

Each pass changes the graph in place and gives the number of nodes that it
removed. Each walks the nodes once and rewrites a reader once, however many of
its inputs change: replacing use by use would be quadratic where one node
reads many. Effects, writes and random draws stay, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from polyop.graph.constants import is_scalar, key_of
from polyop.graph.graph import Graph
from polyop.graph.module import GraphModule
from polyop.graph.node import CALL_FUNCTION, GET_ATTR, Node, called, inputs_of, map_nodes
from polyop.graph.purity import (
    Predicate,
    escaping_nodes,
    is_impure,
    is_write,
    written_nodes,
)


def eliminate_dead_code(graph: Graph, is_impure: Predicate = is_impure) -> int:
    """Remove the nodes that nobody reads and that do nothing else."""
    removed = 0
    for node in reversed(graph.nodes):
        if not node.users and not is_impure(node):
            graph.erase_node(node)
            removed += 1
    return removed


def eliminate_common_subexpressions(
    graph: Graph, is_impure: Predicate = is_impure, is_write: Predicate = is_write
) -> int:
    """Let equal calls be made once.

    Two calls stay two where one of the results may be written to, where both
    reach the caller (who may write to one of them), and where a write stands
    between them.
    """
    written = written_nodes(reversed(graph.nodes), is_write)
    escaping = escaping_nodes(reversed(graph.nodes))
    known: dict[Hashable, Node] = {}
    instead: dict[Node, Node] = {}
    for node in graph.nodes:
        substitute(node, instead)
        if is_write(node):
            known.clear()
        if is_impure(node) or node in written:
            continue
        first = known.setdefault(expression(node), node)
        if first is node or (first in escaping and node in escaping):
            continue
        if node in escaping:
            escaping.add(first)
        instead[node] = first
    for node in reversed(instead):
        graph.erase_node(node)
    return len(instead)


def expression(node: Node) -> Hashable:
    """Give a key that two nodes share only if they compute the same."""
    target = node.target if isinstance(node.target, str) else id(node.target)
    return (node.op, target, key_of(node.args), key_of(node.kwargs))


def substitute(node: Node, instead: dict[Node, Any]) -> None:
    """Replace those inputs of a node that have something in their place."""
    if any(given in instead for given in inputs_of(node)):
        node.map_inputs(lambda given: instead.get(given, given))


# -- constants ----------------------------------------------------------------


def fold_constants(
    module: GraphModule,
    is_impure: Predicate = is_impure,
    is_write: Predicate = is_write,
    is_frozen: Callable[[str], bool] = lambda _: False,
) -> int:
    """Compute now what depends on constants alone.

    An attribute of the module counts as a constant only if `is_frozen` says
    so. A result that a caller may receive, or that may be written to, is made
    anew at each run, unless it is a number. A call that raises stays, and
    raises when it is run.
    """
    graph = module.graph
    written = written_nodes(reversed(graph.nodes), is_write)
    shared = written | escaping_nodes(reversed(graph.nodes))
    changing = {node.target for node in written if node.op == GET_ATTR}
    values: dict[Node, Any] = {}
    for node in graph.nodes:
        if node.op == GET_ATTR and node.target not in changing and is_frozen(node.target):
            values[node] = module.get_attr(node.target)
        elif node.op == CALL_FUNCTION and not is_impure(node):
            evaluate(node, values, shared)
    folded = [node for node in values if node.op != GET_ATTR]
    place(module, values, folded)
    for node in reversed(folded):
        graph.erase_node(node)
    module.recompile()
    return len(folded)


def evaluate(node: Node, values: dict[Node, Any], shared: set[Node]) -> None:
    """Put the value of a call into `values`, if it is a constant."""
    if not all(given in values for given in inputs_of(node)):
        return
    args, kwargs = map_nodes(values.__getitem__, (node.args, node.kwargs))
    try:
        value = called(node.target)(*args, **kwargs)
    except Exception:  # whatever it is, it belongs to the run
        return
    if is_scalar(value) or node not in shared:
        values[node] = value


def place(module: GraphModule, values: dict[Node, Any], folded: list[Node]) -> None:
    """Let the readers that stay read the values in place of the folded nodes."""
    gone = set(folded)
    found: dict[Node, Any] = {}
    readers: dict[Node, None] = {}
    for node in folded:
        staying = [user for user in node.users if user not in gone]
        if staying:
            found[node] = held(module, node, values[node])
            readers.update(dict.fromkeys(staying))
    for reader in readers:
        substitute(reader, found)


def held(module: GraphModule, node: Node, value: Any) -> Any:
    """Give what stands for a constant in a graph: itself, or a read of an attribute."""
    if is_scalar(value):
        return value
    with module.graph.inserting_before(node):
        qualname = module.add_constant(value)
        read = module.graph.get_attr(qualname)
    read.val = node.val
    return read
