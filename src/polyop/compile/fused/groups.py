"""Groups: which pointwise calls of a graph become one loop, and where it stands.

NOTE [Open groups]
Calls are taken in an order in which the pointwise ones come as early as they
can. A group is open until a call outside it reads one of its values, or a write
comes; until then nothing outside depends on it, and all that it reads has been
computed. So a call can join any open group, and two of these can become one,
with no circle; and the walk is linear. Memory does not change between writes,
so there the order is free.

All calls of a group have results of one shape and one layout. What is smaller
is computed before, and not once per element of what it is repeated to.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from heapq import heappop, heappush
from typing import TypeAlias

from polyop.compile.fused.formula import Formula, formula_of
from polyop.graph import Graph, Node
from polyop.graph.node import OUTPUT, PLACEHOLDER, inputs_of
from polyop.graph.purity import is_write

#: The most arrays that one loop reads and writes; NumPy's own limit was 32.
MOST = 24
#: The most calls in one loop: a compiler takes longer than linear time for long functions.
LONGEST = 150


class Group:
    """Calls that become one loop.

    Attributes:
        members: the calls with their formulas, in an order in which they can run.
        inputs: what they read from outside, in the order of its first use.
    """

    def __init__(self) -> None:
        self.members: dict[Node, Formula] = {}
        self.inputs: dict[Node, None] = {}

    @property
    def outputs(self) -> list[Node]:
        """List the members that are read outside."""
        return [n for n in self.members if any(user not in self.members for user in n.users)]

    @property
    def pays(self) -> bool:
        """Whether a loop saves anything: a pass over memory, or a call."""
        return sum(len(formula.steps) for formula in self.members.values()) > 1

    def takes(self, node: Node, formula: Formula) -> None:
        """Add a call."""
        self.members[node] = formula
        self.inputs.update(dict.fromkeys(n for n in formula.inputs if n not in self.members))

    def joins(self, other: Group) -> None:
        """Add all calls of another group."""
        self.members.update(other.members)
        self.inputs.update(other.inputs)

    def has_room(self, others: Iterable[Group], node: Node, formula: Formula) -> bool:
        """Tell whether one more call, and other groups, are not too much for one loop."""
        groups = [self, *others]
        inputs = {n for group in groups for n in group.inputs} | set(formula.inputs)
        calls = sum(len(group.members) for group in groups)
        outputs = sum(len(group.outputs) for group in groups)
        return len(inputs) + outputs + 1 <= MOST and calls < LONGEST


Item: TypeAlias = Node | Group


def items_of(graph: Graph) -> list[Item]:
    """List the calls of a graph, groups among them, in an order in which they can run."""
    walk = Walk()
    for part in _parts(graph):
        for node, formula in _pointwise_first(part):
            walk.add(node, formula)
        walk.close_all()
    return walk.items


def _parts(graph: Graph) -> Iterator[list[Node]]:
    """Cut a graph at its writes, each of which is a part by itself."""
    part: list[Node] = []
    for node in graph.nodes:
        if node.op in (PLACEHOLDER, OUTPUT):
            continue
        if is_write(node):
            yield part
            yield [node]
            part = []
        else:
            part.append(node)
    yield part


def _pointwise_first(part: list[Node]) -> Iterator[tuple[Node, Formula | None]]:
    """Order the calls of a part such that pointwise ones come as early as they can."""
    formulas = {node: formula_of(node) for node in part}
    place = {node: i for i, node in enumerate(part)}
    missing = {node: sum(given in place for given in inputs_of(node)) for node in part}
    # Two queues: pointwise calls that can run, and the others; each in the order of the graph.
    ready: tuple[list[int], list[int]] = ([], [])

    def put(node: Node) -> None:
        heappush(ready[formulas[node] is None], place[node])

    for node in part:
        if not missing[node]:
            put(node)
    while ready[0] or ready[1]:
        node = part[heappop(ready[0] or ready[1])]
        yield node, formulas[node]
        for user in node.users:
            if user in missing:
                missing[user] -= 1
                if not missing[user]:
                    put(user)


class Walk:
    """Puts calls into groups: NOTE [Open groups]."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.open: dict[Group, Hashable] = {}
        self.of: dict[Node, Group] = {}
        #: By layout and input, the open group that read it last: what reads the same joins it.
        self.readers: dict[Hashable, Group] = {}

    def add(self, node: Node, formula: Formula | None) -> None:
        """Take the next call."""
        key = None if formula is None else layout_of(node)
        for given in inputs_of(node):
            group = self.of.get(given)
            if group in self.open and self.open[group] != key:
                self.close(group)
        if formula is None:
            self.items.append(node)
        else:
            self._join(node, formula, key)

    def _join(self, node: Node, formula: Formula, key: Hashable) -> None:
        found = self._candidates(formula, key)
        group = found.pop(0) if found else Group()
        if not group.has_room(found, node, formula):
            for full in [group, *found]:
                self.close(full)
            group, found = Group(), []
        for other in found:
            group.joins(other)
            del self.open[other]
            self.of.update(dict.fromkeys(other.members, group))
        group.takes(node, formula)
        self.open[group] = key
        self.of[node] = group
        self.readers.update({(key, given): group for given in group.inputs})

    def _candidates(self, formula: Formula, key: Hashable) -> list[Group]:
        """List the open groups that a call reads, or that read what it reads."""
        reads = (self.of.get(given) for given in formula.inputs)
        beside = (self.readers.get((key, given)) for given in formula.inputs)
        found = [g for g in reads if g is not None and g in self.open]
        found = found or [g for g in beside if g is not None and g in self.open]
        return list(dict.fromkeys(found))

    def close(self, group: Group) -> None:
        """Put a group where it is, for good."""
        del self.open[group]
        if group.pays:
            self.items.append(group)
        else:
            self.items += group.members

    def close_all(self) -> None:
        """Close every group."""
        for group in list(self.open):
            self.close(group)


def layout_of(node: Node) -> Hashable:
    """Give what results of one loop have in common: the shape and the order in memory."""
    shape, strides = node.val.shape, node.val._strides
    return _key(shape), None if strides is None else _key(strides)


def _key(sizes: Iterable[object]) -> Hashable:
    # Equal expressions are one object, and to compare symbols would ask, and so guard.
    return tuple([n if type(n) is int else (id(n),) for n in sizes])
