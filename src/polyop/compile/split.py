"""A joint graph, cut in two: forward, and backward with what it reads of forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.graph import Graph, GraphModule, Node, eliminate_dead_code


def split(
    whole: GraphModule, last: Node, parameters: Sequence[str]
) -> tuple[GraphModule, GraphModule]:
    """Cut a joint graph after `last`; what crosses becomes a result and an input."""
    output = whole.graph.output_node
    assert output is not None
    results, grads = output.args[0]
    first, second = _with_results(*_halves(whole.graph, last), results)
    needed = _crossing(second, grads, set(first))
    forward = _forward(first, results, needed, parameters)
    backward = _backward(second, grads, needed)
    modules = GraphModule(whole, forward), GraphModule(whole, backward)
    for module in modules:
        eliminate_dead_code(module.graph)
    return modules


def _halves(graph: Graph, last: Node) -> tuple[list[Node], list[Node]]:
    first: list[Node] = []
    second: list[Node] = []
    here = first
    for node in graph.nodes:
        if node.op != "output":
            here.append(node)
        if node is last:
            here = second
    return first, second


def _with_results(
    first: list[Node], second: list[Node], results: Any
) -> tuple[list[Node], list[Node]]:
    """Bring what results are made of into the first half: constants become nodes when asked for."""
    late, waiting = set(), [r for r in results if isinstance(r, Node)]
    behind = set(second)
    while waiting:
        node = waiting.pop()
        if node in behind and node not in late:
            late.add(node)
            waiting += node.all_input_nodes
    return [*first, *(n for n in second if n in late)], [n for n in second if n not in late]


def _crossing(second: Sequence[Node], grads: Any, first: set[Node]) -> list[Node]:
    needed: dict[Node, None] = {}
    for node in second:
        for given in node.all_input_nodes:
            if given in first:
                needed[given] = None
    for given in grads:
        if isinstance(given, Node) and given in first:
            needed[given] = None
    return list(needed)


def _forward(
    first: Sequence[Node], results: Any, needed: Sequence[Node], parameters: Sequence[str]
) -> Graph:
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in first:
        if node.op == "placeholder":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    for name in parameters:
        # A parameter is an input here, so that gradients reach it.
        source = next(n for n in first if n.op == "get_attr" and n.target == name)
        copies[source] = graph.placeholder(name)
        copies[source].val = source.val
    for node in first:
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    given = [copies[r] if isinstance(r, Node) else r for r in results]
    graph.output([given, [copies[n] for n in needed]])
    return graph


def _backward(second: Sequence[Node], grads: Any, needed: Sequence[Node]) -> Graph:
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in needed:
        copies[node] = graph.placeholder(f"saved_{node.name}")
        copies[node].val = node.val
    # All inputs come first; the tangents stand at the beginning of this half anyway.
    for node in [*(n for n in second if n.op == "placeholder"), *second]:
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[g] if isinstance(g, Node) else g for g in grads])
    return graph
