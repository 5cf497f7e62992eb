"""Calls on which an author's kernel acts above the trace: one node, if nobody looks inside (S209).

A kernel at an autograd key, or at ADInplaceOrView, does something and goes on with its operator. A
program with the operator in it would run the kernel, and so must not have what the kernel does as
well. While the kernel runs, all that it calls is recorded, since a gradient that is taken in the
same function may read any of it. In the end such a call is one node, with the gradient and all
other rules of its operator. Only where something inside is read does what was recorded stay; there
the operator is called below the kernel (`dispatch/below.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from polyop import tree
from polyop.dispatch.below import ABOVE_TRACES, Below, below_passed, whole_of
from polyop.dispatch.bits import MODES, SUBCLASS, TRACE, WRAPPED
from polyop.dispatch.context import word
from polyop.dispatch.operator import ACTS, Handler, OperatorBase, OpOverload
from polyop.dispatch.resolve import Way
from polyop.dispatch.results import tensors_in
from polyop.dispatch.shortened import shortened
from polyop.errors import CaptureError
from polyop.graph import Graph, Node
from polyop.graph.node import CALL_FUNCTION, GET_ATTR, PLACEHOLDER, inputs_of
from polyop.graph.purity import is_impure, may_alias
from polyop.layers.trace.handlers import plain_keys
from polyop.layers.trace.sizes import assert_holds, sym_size
from polyop.schema.tags import Tag
from polyop.symbolic import SymInt


@dataclass(frozen=True, slots=True)
class Around:
    """What was recorded while an author's kernel ran.

    Attributes:
        op: the operator.
        before: the last node before.
        node: the call as one node, right behind.
        last: the last of those that take it apart.
        results: for each tensor of the result, the node inside that made it, if one did, and the
            one by which it is known now.
        watched: whether modes saw what the kernel called.
    """

    op: OperatorBase
    before: Node
    node: Node
    last: Node
    results: tuple[tuple[Node | None, Node], ...]
    watched: bool


class WholeLayer:
    """Records a call on which an author's kernel acts before the trace does."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler, if a trace records and the kernel stands above it."""
        key = way.acted[-1]
        mixed = way.code & (SUBCLASS | WRAPPED)
        if not way.code & TRACE or mixed or not ABOVE_TRACES.has(key):
            return None
        target = below_passed(way.op, way.keys, plain_keys(way.code))
        op, below, watched = way.op, way.handler(), bool(way.code & MODES)

        def record(*values: Any) -> Any:
            tracer = word().tracer
            if not tracer.whole_calls or whole_of(op) in tracer.table:
                return below(*values)
            args, kwargs = shortened(op, values)
            whole = Whole(op, target, args, kwargs, watched=watched)
            return whole.record(tracer, below, values)

        return record


@dataclass(frozen=True, slots=True)
class Whole:
    """A call that becomes one node, behind all that is recorded inside of it.

    Attributes:
        op: what is called.
        target: what the node calls.
        args: its arguments there.
        kwargs: those by name.
        watched: whether modes see what is called inside.
    """

    op: OperatorBase
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    watched: bool = False

    def record(self, tracer: Any, run: Callable[..., Any], values: Sequence[Any]) -> Any:
        """Run it on values, and record it."""
        given, named = tracer.value(self.args), tracer.value(self.kwargs)
        tensors = [(t, tracer.node_of(t)) for t in tensors_in(values)]
        before, around = tracer.graph.last, tracer.acting
        tracer.acting = self.op
        try:
            result = run(*values)
        finally:
            tracer.acting = around
        found = [*tensors_in(result)]
        inside = [tracer.made_node(t) for t in found]
        for tensor, node in tensors:
            if tracer.made_node(tensor) is not node:
                tracer.written(tensor, node)
        node = tracer.graph.create_node(CALL_FUNCTION, self.target, given, named)
        tracer.results(node, result, [t for t, _ in tensors])
        pairs = tuple(zip(inside, map(tracer.node_of, found), strict=True))
        tracer.around.append(Around(self.op, before, node, tracer.graph.last, pairs, self.watched))
        return result


def settle(graph: Graph, calls: Sequence[Around]) -> None:
    """Let each call be one node, or what was recorded inside of it.

    Args:
        graph: the finished graph.
        calls: those on which kernels acted, each behind those inside of it.

    Raises:
        CaptureError: neither is right.
    """
    gone: set[Node] = set()
    for call in reversed(calls):
        if call.node in gone:
            continue
        found = Inside(call)
        stays = found.stays()
        if not found.is_read() and (stays or found.goes_on()):
            found.close(graph, gone)
        elif stays:
            _refuse(call)
        else:
            found.open(graph, gone)


class Inside:
    """The nodes of a call on which a kernel acted.

    Attributes:
        nodes: all of them.
        taken: the call as one node, and those that take it apart.
        made: for those that made the results, the nodes by which these are known now.
        own: the calls of operators, and what is made of their results; sizes of inputs are not.
        about: sizes of the results, and what is asserted of them.
        moved: those sizes that were taken of what made a result, and where the result has them.
    """

    def __init__(self, call: Around) -> None:
        self.call = call
        between = _from(call.before, call.last)
        count = between.index(call.node)
        self.nodes, self.taken = between[:count], between[count:]
        self.made = {node: now for node, now in call.results if node is not None}
        self.own: dict[Node, None] = {}
        self.about: dict[Node, None] = {}
        self.moved: dict[Node, tuple[Node, int]] = {}
        for node in self.nodes:
            if node.op not in {PLACEHOLDER, GET_ATTR}:
                self._place(node)

    def _place(self, node: Node) -> None:
        given = [n for n in inputs_of(node) if n in self.own or n in self.about]
        calls = isinstance(node.target, OperatorBase)
        if node.target is sym_size and (place := self._size_of(node)) is not None:
            self.moved[node] = place
            self.about[node] = None
        elif given and not calls and all(n in self.made or n in self.about for n in given):
            self.about[node] = None
        elif given or calls or is_impure(node):
            self.own[node] = None

    def _size_of(self, size: Node) -> tuple[Node, int] | None:
        """Give a result, and the axis of it, that has the size of a tensor inside."""
        if size.args[0] not in self.own or size.args[0] in self.made:
            return None
        for _, now in self.call.results:
            for axis, n in enumerate(getattr(now.val, "shape", ())):
                if n.__class__ is SymInt and n.expr == size.val.expr:
                    return now, axis
        return None

    def is_read(self) -> bool:
        """Tell whether something but the results is read outside, or done beside them.

        What is asserted of sizes that no result has, the kernel sees to when it runs.
        """
        inside = self.own.keys() | self.moved.keys()
        return any(
            (node not in self.made and any(user not in inside for user in node.users))
            or (is_impure(node) and not _is_own(node.target))
            for node in self.own
        )

    def stays(self) -> bool:
        """Tell whether something of the result is known by the call as one node alone."""
        known = [now for _, now in self.call.results]
        return any(node is None for node, _ in self.call.results) or any(
            user not in self.taken
            for node in self.taken
            if node not in known
            for user in node.users
        )

    def goes_on(self) -> bool:
        """Tell whether the kernel goes on with its operator; what modes saw is nothing else."""
        if not isinstance(self.call.op, OpOverload):
            return True  # no kernel acts, and what it calls is its own affair
        op, node = whole_of(self.call.op), self.call.node
        on = [n for n in self.own if isinstance(n.target, Below) and n.target.whole is op]
        return bool(on) and (
            not self.call.watched or (len(self.own) == len(on) == 1 and on[0].args == node.args)
        )

    def close(self, graph: Graph, gone: set[Node]) -> None:
        """Leave the call alone; if the kernel draws or writes, passes are to leave it too."""
        target = self.call.node.target
        if isinstance(target, OpOverload) and any(map(self._acts, self.own)):
            target.notes[ACTS] = True
        for node, now in self.made.items():
            for user in [user for user in node.users if user not in self.own]:
                user.replace_input_with(node, now)
        for node, place in self.moved.items():
            node.replace_input_with(node.args[0], place[0])
            node.args = place
        last = self.call.last
        for node in self.about:
            graph.move_after(last, node)
            last = node
        _erase(graph, [node for node in self.nodes if node not in self.about], gone)

    def _acts(self, node: Node) -> bool:
        """Tell whether a node draws, or writes what was there before the call."""
        if node.target is assert_holds or not is_impure(node):
            return False
        schema = getattr(node.target, "_schema", None)
        if not getattr(schema, "is_mutable", False) or _draws(node):
            return True
        pending = _aliased(node, written=True)
        while pending:
            written = pending.pop()
            if written not in self.own:
                return True
            pending += _aliased(written) if may_alias(written) else []
        return False

    def open(self, graph: Graph, gone: set[Node]) -> None:
        """Let what was recorded inside stand for the call."""
        for node, now in self.call.results:
            assert node is not None  # else it stays
            now.replace_all_uses_with(node)
        _erase(graph, self.taken, gone)


def _draws(node: Node) -> bool:
    return Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _aliased(node: Node, *, written: bool = False) -> list[Node]:
    """List the inputs that results may share memory with, or that are written alone."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or Tag.maybe_aliasing_or_mutating in node.target.tags:
        return [*inputs_of(node)]
    given = dict(zip([a.name for a in schema.arguments], node.args, strict=False)) | node.kwargs
    chosen = [a for a in schema.arguments if a.is_write or (a.alias_info and not written)]
    found = [given.get(a.name) for a in chosen]
    return [leaf for leaf in tree.leaves(found) if isinstance(leaf, Node)]


def _is_own(target: Any) -> bool:
    """Tell whether a kernel does again what a node of it did."""
    return isinstance(target, OperatorBase) or target is assert_holds


def _from(before: Node, last: Node) -> list[Node]:
    """List the nodes behind one, up to another one."""
    nodes = [before.next]
    while nodes[-1] is not last:
        nodes.append(nodes[-1].next)
    return nodes


def _erase(graph: Graph, nodes: Sequence[Node], gone: set[Node]) -> None:
    """Take out those of some nodes that nobody reads any more."""
    for node in reversed(nodes):
        if node.op != PLACEHOLDER and not node.users:
            graph.erase_node(node)
            gone.add(node)


def _refuse(call: Around) -> NoReturn:
    raise CaptureError(
        f"what a kernel of {call.op.name()} computed is read outside of the call, and the kernel "
        "gives a tensor that no recorded call made",
        op=getattr(call.op, "_schema", call.op),
        source=getattr(call.op, "source", ""),
        fix="let the kernel compute with operators, or trace the function without its gradient",
    )
