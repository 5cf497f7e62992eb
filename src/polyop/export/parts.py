"""Partition: which nodes of a graph each backend takes, in parts that can run at once (S216).

NOTE [Parts by rounds]
Seen as rounds, a graph runs all that it can without a backend, then all that
the backend takes and whose inputs are there, then all else, and so on. The
round of a node is the round of what it reads, plus one where a taken node
reads one that is not taken. All
taken nodes of one round are one part. A path from a part to itself through
another node would have to raise the round, so parts are convex; rounds order
the parts and what is between them, so nothing runs in a circle. A chain of
calls that changes hands n times needs n parts in any partition, so there are
no fewer. One walk does it, in any order that the graph has. What a part
cannot be given from outside, such as several results at once or a condition,
is read by its own part alone.

For a second backend the parts of the first are nodes: two parts may each be
convex and still wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from polyop.export.lowered import Backend, find_backend
from polyop.graph import Graph, Node, is_impure
from polyop.graph.node import CALL_FUNCTION, GET_ATTR, PLACEHOLDER
from polyop.graph.purity import is_write, writes_to_inputs
from polyop.layers.trace.sizes import FUNCTIONS, assert_holds
from polyop.symbolic import SymBool, SymFloat


@dataclass(frozen=True)
class Part:
    """Nodes that one backend runs at once, in the order of the graph."""

    backend: Backend
    nodes: tuple[Node, ...]


class Unit:
    """A node, or a part of the nodes so far, among those that are still to be divided."""

    __slots__ = ("inputs", "nodes", "taken")

    def __init__(self, nodes: Sequence[Node], taken: bool) -> None:
        self.nodes = list(nodes)
        self.taken = taken
        self.inputs: dict[Unit, None] = {}

    @property
    def is_source(self) -> bool:
        """Whether it is there from the beginning: an input or an attribute."""
        return not self.taken and self.nodes[0].op in (PLACEHOLDER, GET_ATTR)


def partition(program: Any, backends: Any) -> list[Part]:
    """Divide a graph among backends; what a backend takes, later ones do not get.

    Args:
        program: a `Program`, a `GraphModule`, or a graph.
        backends: a backend or its name, or several, in the order in which they choose.

    Returns:
        The parts, in an order in which they can run; nodes with effects or writes are in none.
    """
    graph: Graph = getattr(program, "graph", program)
    return [
        Part(backend, tuple(unit.nodes))
        for unit, backend in divide(graph, backends)
        if backend is not None
    ]


def divide(graph: Graph, backends: Any) -> list[tuple[Unit, Backend | None]]:
    """Give the parts, and every other node alone, in an order in which they can run."""
    chosen = backends if isinstance(backends, (list, tuple)) else [backends]
    units = _units(graph)
    done: dict[Unit, Backend] = {}
    for backend in map(find_backend, chosen):
        rounds, takes = _rounds(units, backend)
        parts = _parts(units, rounds, takes, getattr(backend, "worth", None))
        units = _joined(units, rounds, parts)
        done.update(dict.fromkeys(parts, backend))
    return [(unit, done.get(unit)) for unit in units]


def _units(graph: Graph) -> list[Unit]:
    """Give each node as a unit that knows what must run before it."""
    by_node: dict[Node, Unit] = {}
    since: list[Unit] = []  # what ran after the last write
    write: Unit | None = None
    impure: Unit | None = None
    for node in graph.nodes:
        unit = by_node[node] = Unit([node], taken=False)
        unit.inputs.update((by_node[given], None) for given in node.all_input_nodes)
        if unit.is_source:
            continue
        if write is not None:
            unit.inputs[write] = None
        if is_write(node):
            if impure is not None:
                unit.inputs[impure] = None
            impure = unit
        if node.target is not assert_holds and writes_to_inputs(node, is_write):
            unit.inputs.update(dict.fromkeys(since))
            write, since = unit, []
        since.append(unit)
    return list(by_node.values())


def _rounds(units: Sequence[Unit], backend: Backend) -> tuple[dict[Unit, int], set[Unit]]:
    """Give the round of each unit, and those that a backend takes."""
    rounds: dict[Unit, int] = {}
    takes: set[Unit] = set()
    owner = {node: unit for unit in units for node in unit.nodes}
    for unit in units:
        node = unit.nodes[0]
        mine = not unit.taken and _may_take(node) and backend.takes(node)
        if mine:
            number = max((rounds[given] + (given not in takes) for given in unit.inputs), default=0)
            bound = [owner[given] for given in node.all_input_nodes if not _can_be_given(given)]
            mine = all(given in takes and rounds[given] == number for given in bound)
        if mine:
            takes.add(unit)
            rounds[unit] = number
        else:
            rounds[unit] = max((rounds[given] for given in unit.inputs), default=-1)
    return rounds, takes


def _may_take(node: Node) -> bool:
    return node.op == CALL_FUNCTION and not is_impure(node)


def _can_be_given(node: Node) -> bool:
    """Tell whether a part may have a value from outside: a tensor, a size or an object."""
    if node.val is None:  # between sizes: what is computed on the way has no description
        return node.target not in FUNCTIONS.values()
    return not isinstance(node.val, (tuple, list, dict, SymBool, SymFloat))


def _parts(
    units: Sequence[Unit],
    rounds: dict[Unit, int],
    takes: set[Unit],
    worth: Callable[[Sequence[Node]], bool] | None,
) -> dict[Unit, list[Unit]]:
    """Give a new unit for each part, with the units that it joins."""
    by_round: dict[int, list[Unit]] = {}
    for unit in units:
        if unit in takes:
            by_round.setdefault(rounds[unit], []).append(unit)
    made = {}
    for inside in by_round.values():
        nodes = [unit.nodes[0] for unit in inside]
        if worth is None or worth(nodes):
            made[Unit(nodes, taken=True)] = inside
    return made


def _joined(
    units: Sequence[Unit], rounds: dict[Unit, int], parts: dict[Unit, list[Unit]]
) -> list[Unit]:
    """Give the units after joining, inputs before those who read them."""
    whole = {inner: part for part, inside in parts.items() for inner in inside}
    for unit in units:
        target = whole.get(unit, unit)
        inputs = dict.fromkeys(whole.get(given, given) for given in unit.inputs)
        inputs.pop(target, None)
        if target is unit:
            target.inputs = inputs
        else:
            target.inputs.update(inputs)
    order = sorted(units, key=lambda u: (rounds[u], u not in whole))
    return list(dict.fromkeys(whole.get(unit, unit) for unit in order))
