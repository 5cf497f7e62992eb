"""The backend `"c"`: a graph whose pointwise groups are single calls, compiled when it first runs.

A program is made for the kernels that operators had; after any change of an
operator it is asked again whether these still hold. Where somebody acts on calls
(a mode, a transform around a backward pass), the graph runs as it was captured.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

from polyop.compile.fused.call import make_call
from polyop.compile.fused.formula import kernel_of
from polyop.compile.fused.groups import Group, Item, items_of
from polyop.compile.fused.library import compiler, load_library, no_compiler
from polyop.compile.fused.source import signature, source_of
from polyop.compile.fused.ufunc import make_ufunc
from polyop.dispatch.bits import NO_GRAD
from polyop.dispatch.context import word
from polyop.dispatch.operator import CHANGES
from polyop.errors import PolyopError, PolyopWarning
from polyop.forks import lock_maker
from polyop.graph import Graph, GraphModule, Node
from polyop.graph.node import called
from polyop.graph.runner import compile_program
from polyop.warn import warn_once

Run = Callable[..., Any]
_new_lock = lock_maker()
#: Whatever else a word says: somebody acts on calls.
ACTIVE = ~NO_GRAD


def fuse(module: GraphModule, *, strict: bool = True) -> Run:
    """Make the callable of a graph, with a loop of C for each pointwise group.

    Args:
        module: the graph.
        strict: raise where no loop can be made; else the graph runs, and that is said once.

    Raises:
        UsageError: there is no C compiler.
    """
    items = items_of(module.graph)
    if not any(isinstance(item, Group) for item in items):
        return module
    if compiler() is None:
        _give_up(no_compiler(), strict)
        return module
    return FusedRun(module, items, strict).__call__


def _give_up(error: PolyopError, strict: bool) -> None:
    if strict:
        raise error
    warn_once(
        PolyopWarning,
        f"compiled functions run operator by operator: {error.problem} ({error.fix})",
        key="no loops",
    )


class FusedRun:
    """A graph with loops, compiled when it first runs: a backward pass may never do."""

    def __init__(self, module: GraphModule, items: list[Item], strict: bool) -> None:
        self.module = module
        self.strict = strict
        self.lock = _new_lock()
        self.items = items
        self.groups = [item for item in items if isinstance(item, Group)]
        self.kernels = {n.target: kernel_of(n.target) for g in self.groups for n in g.members}
        self.changes = CHANGES[0]
        self.program: Run | None = None

    def __call__(self, *inputs: Any) -> Any:
        """Run the graph."""
        if word() & ACTIVE or (self.changes != CHANGES[0] and not self._holds()):
            return self.module(*inputs)
        return (self.program or self._made())(*inputs)

    def _holds(self) -> bool:
        """Tell whether operators are what they were."""
        changes = CHANGES[0]
        if any(kernel_of(op) is not kernel for op, kernel in self.kernels.items()):
            return False
        self.changes = changes
        return True

    def _made(self) -> Run:
        with self.lock:
            if self.program is None:
                try:
                    self.program = self._program()
                except PolyopError as error:
                    _give_up(error, self.strict)
                    self.program = self.module
            return self.program

    def _program(self) -> Run:
        library = load_library(lambda vectors: source_of(self.groups, vectors=vectors))
        calls = {}
        for i, group in enumerate(self.groups):
            dtypes = signature(group)
            ufunc = make_ufunc(library, f"loop_{i}", *dtypes)
            calls[group] = make_call(ufunc, library.polyop_flags, dtypes, self._plain(group))
        graph = self._graph(calls)
        return _direct(graph) or compile_program(graph, get_attr=self.module.get_attr)

    def _plain(self, group: Group) -> GraphModule:
        """Give a group as a graph of its own calls, for arrays that its loop is not for."""
        graph = Graph()
        copies = {node: graph.placeholder(node.name) for node in group.inputs}
        for node in group.members:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        found = [copies[node] for node in group.outputs]
        graph.output(found[0] if len(found) == 1 else tuple(found))
        return GraphModule({}, graph)

    def _graph(self, calls: dict[Group, Run]) -> Graph:
        """Give the graph with one call in the place of each group."""
        graph = Graph()
        copies: dict[Node, Node] = {}
        for node in self.module.graph.placeholders:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        for item in self.items:
            if isinstance(item, Node):
                copies[item] = graph.node_copy(item, copies.__getitem__)
                continue
            given = tuple([copies[n] for n in item.inputs])
            made = graph.call_function(calls[item], given)
            outputs = item.outputs
            for i, node in enumerate(outputs):
                one = len(outputs) == 1
                copies[node] = made if one else graph.call_function(getitem, (made, i))
        output = self.module.graph.output_node
        assert output is not None
        graph.node_copy(output, copies.__getitem__)
        return graph


def _direct(graph: Graph) -> Run | None:
    """Give a program of one loop, which reads the inputs in their order, without registers."""
    calls = [n for n in graph.nodes if n.op == "call_function"]
    others = [n for n in graph.nodes if n.op not in ("call_function", "placeholder", "output")]
    output = graph.output_node
    if len(calls) != 1 or others or calls[0].args != tuple(graph.placeholders):
        return None
    assert output is not None
    if not isinstance(output.args[0], list) or output.args[0] != [calls[0]]:
        return None
    call: Run = called(calls[0].target)
    return lambda *inputs: [call(*inputs)]
