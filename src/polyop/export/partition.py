"""Partition: which nodes of a graph each backend takes, in parts that can run at once (S216).

NOTE [Parts by rounds]
Seen as rounds, a graph runs all that a backend takes and whose inputs are
there, then all else that it can, and so on. The round of a node is the round
of what it reads, plus one where a taken node reads one that is not taken. All
taken nodes of one round are one part. A path from a part to itself through
another node would have to raise the round, so parts are convex; rounds order
the parts and what is between them, so nothing runs in a circle. A chain of
calls that changes hands n times needs n parts in any partition, so there are
no fewer. One walk does it, in any order that the graph has.

For a second backend the parts of the first are nodes: two parts may each be
convex and still wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from polyop.export.lowered import Backend, find_backend
from polyop.graph import Graph, Node, is_impure
from polyop.graph.node import CALL_FUNCTION
from polyop.graph.purity import is_write, writes_to_inputs


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


def partition(program: Any, backends: Any) -> list[Part]:
    """Divide a graph among backends; what a backend takes, later ones do not get.

    Args:
        program: a `Program`, a `GraphModule`, or a graph.
        backends: a backend or its name, or several, in the order in which they choose.

    Returns:
        The parts, in an order in which they can run; nodes with effects or writes are in none.
    """
    graph: Graph = getattr(program, "graph", program)
    chosen = backends if isinstance(backends, (list, tuple)) else [backends]
    units = _units(graph)
    done: dict[Unit, Backend] = {}
    for backend in map(find_backend, chosen):
        units, made = _divide(units, backend)
        done.update(dict.fromkeys(made, backend))
    return [Part(done[unit], tuple(unit.nodes)) for unit in units if unit in done]


def _units(graph: Graph) -> list[Unit]:
    """Give each node as a unit that knows what must run before it."""
    by_node: dict[Node, Unit] = {}
    since: list[Unit] = []  # what ran after the last write
    write: Unit | None = None
    impure: Unit | None = None
    for node in graph.nodes:
        unit = by_node[node] = Unit([node], taken=False)
        unit.inputs.update((by_node[given], None) for given in node.all_input_nodes)
        if write is not None:
            unit.inputs[write] = None
        if is_write(node):
            if impure is not None:
                unit.inputs[impure] = None
            impure = unit
        if writes_to_inputs(node, is_write):
            unit.inputs.update(dict.fromkeys(since))
            write, since = unit, []
        since.append(unit)
    return list(by_node.values())


def _divide(units: Sequence[Unit], backend: Backend) -> tuple[list[Unit], list[Unit]]:
    """Give the units with those that a backend takes joined, in an order to run, and its parts."""
    rounds: dict[Unit, int] = {}
    takes: dict[Unit, bool] = {}
    for unit in units:
        takes[unit] = not unit.taken and _may_take(unit.nodes[0]) and backend.takes(unit.nodes[0])
        before = [
            rounds[given] + (takes[unit] and not takes[given] and _counts(given))
            for given in unit.inputs
        ]
        rounds[unit] = max(before, default=0)
    parts = _parts(units, rounds, takes, getattr(backend, "worth", None))
    joined = {inner: part for part, inside in parts.items() for inner in inside}
    return _ordered(units, rounds, joined), list(parts)


def _counts(unit: Unit) -> bool:
    """Whether a unit runs at all; inputs and attributes are there from the beginning."""
    return unit.taken or unit.nodes[0].op not in ("placeholder", "get_attr")


def _may_take(node: Node) -> bool:
    return node.op == CALL_FUNCTION and not is_impure(node)


def _parts(
    units: Sequence[Unit],
    rounds: dict[Unit, int],
    takes: dict[Unit, bool],
    worth: Callable[[Sequence[Node]], bool] | None,
) -> dict[Unit, list[Unit]]:
    """Give a new unit for each part, with the units that it joins."""
    by_round: dict[int, list[Unit]] = {}
    for unit in units:
        if takes[unit]:
            by_round.setdefault(rounds[unit], []).append(unit)
    made = {}
    for inside in by_round.values():
        nodes = [unit.nodes[0] for unit in inside]
        if worth is None or worth(nodes):
            made[Unit(nodes, taken=True)] = inside
    return made


def _ordered(
    units: Iterable[Unit], rounds: dict[Unit, int], joined: dict[Unit, Unit]
) -> list[Unit]:
    """Give the units after joining, inputs before those who read them."""
    listed = list(units)
    now = {unit: joined.get(unit, unit) for unit in listed}
    order = sorted(listed, key=lambda unit: (_counts(unit), rounds[unit], unit not in joined))
    found: dict[Unit, None] = {}
    for unit in order:
        whole = now[unit]
        whole.inputs = {
            now[given]: None for given in (*whole.inputs, *unit.inputs) if now.get(given, given)
            is not whole
        } if whole is unit else _merged(whole, unit, now)  # fmt: skip
        found[whole] = None
    return list(found)


def _merged(whole: Unit, unit: Unit, now: dict[Unit, Unit]) -> dict[Unit, None]:
    whole.inputs.update((now[given], None) for given in unit.inputs if now[given] is not whole)
    return whole.inputs
