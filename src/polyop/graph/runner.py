"""Runs a graph as a register program, made once (PERFORMANCE section 10).

Each value lives in a register, a place in one list; constants have theirs.
The last reader of a value writes its own result over it, or clears it, so
that nothing lives longer than in the printed code of an eager program.

One loop runs every instruction `(f, i, j, d)`: with `j` it is `f(r[i], r[j])`,
with `i` alone `f(r[i])`, with neither `f(r)`, where `f` finds its arguments
itself. A program of pairs alone has a loop without tests. The road not taken is
a loop per kind: programs change kind every few nodes, and entering a loop costs
more than the two tests, which are against `None` because the truth of a number
takes twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter, length_hint
from typing import Any, TypeAlias

from polyop.errors import GraphError, UsageTypeError
from polyop.graph.constants import key_of
from polyop.graph.graph import Graph
from polyop.graph.node import (
    CALL_FUNCTION,
    CALL_METHOD,
    CALL_MODULE,
    GET_ATTR,
    OUTPUT,
    PLACEHOLDER,
    Node,
    called,
    inputs_of,
    parts_of,
)
from polyop.graph.text import line_of

Registers: TypeAlias = list[Any]
Reader: TypeAlias = Callable[[Registers], Any]
Instruction: TypeAlias = tuple[Callable[..., Any], Any, Any, int]
Program: TypeAlias = Callable[..., Any]

#: Clears a register: writes what is in register 0, which is always `None`.
NOTHING: Reader = itemgetter(0)


def compile_program(
    graph: Graph,
    resolve: Callable[[Node], Callable[..., Any]] | None = None,
    get_attr: Callable[[str], Any] | None = None,
) -> Program:
    """Make the function that runs a graph.

    Args:
        graph: a well-formed graph; later changes to it are not seen.
        resolve: gives what to call for each call node; the node's own target if absent.
        get_attr: gives an attribute of the owning module, at each run.

    Raises:
        GraphError: for an attribute or submodule without `get_attr`.
    """
    builder = Builder(resolve, get_attr)
    builder.plan(graph.nodes)
    for node in graph.nodes:
        builder.add(node)
    return make_run(builder)


def make_run(builder: Builder) -> Program:
    """Close the loop over a finished program."""
    count = builder.inputs
    pad = (*builder.pad, *[None] * (builder.size - count - 1 - len(builder.pad)))
    program, nodes, result = tuple(builder.program), tuple(builder.nodes), builder.result

    pairs = all(j is not None for _, _, j, _ in program)

    def run(*inputs: Any) -> Any:
        if len(inputs) != count:
            raise wrong_count(count, len(inputs))
        r = [None, *inputs, *pad]
        del inputs
        steps = iter(program)
        of_pairs, of_any = (steps, ()) if pairs else ((), steps)
        try:
            for f, i, j, d in of_pairs:
                r[d] = f(r[i], r[j])
            for f, i, j, d in of_any:
                if j is not None:
                    r[d] = f(r[i], r[j])
                elif i is not None:
                    r[d] = f(r[i])
                else:
                    r[d] = f(r)
        except Exception as error:
            # The iterator knows how far it came; a counter would cost each step.
            blame(error, nodes[len(program) - length_hint(steps) - 1])
            raise
        return result(r)

    return run


def wrong_count(expected: int, given: int) -> UsageTypeError:
    """Make the error for a wrong number of inputs."""
    return UsageTypeError(
        "a graph was called with a wrong number of inputs",
        declared=f"{expected} inputs",
        seen=f"{given} inputs",
    )


def blame(error: Exception, node: Node) -> None:
    """Note on an exception which node raised it, and where that was written."""
    source = getattr(node, "source", None)
    place = f", from {source}" if source else ""
    error.add_note(f"while running node {node.name}: {line_of(node)}{place}")


class Builder:
    """Gives registers to values and instructions to nodes."""

    def __init__(
        self,
        resolve: Callable[[Node], Callable[..., Any]] | None,
        get_attr: Callable[[str], Any] | None,
    ) -> None:
        self.resolve = resolve or self.own_target
        self.get_attr = get_attr
        self.where: dict[Node, int] = {}
        self.last_reader: dict[Node, Node] = {}
        self.flat: set[Node] = set()
        self.constants: dict[Any, int] = {}
        self.pad: list[Any] = []
        self.free: list[int] = []
        self.inputs = 0
        self.size = 1
        self.program: list[Instruction] = []
        self.nodes: list[Node] = []
        self.result = NOTHING

    # -- first walk: inputs, constants, last readers --------------------------

    def plan(self, nodes: Iterable[Node]) -> None:
        """Give inputs and constants their registers, and find who reads each value last."""
        calls: list[Node] = []
        for node in nodes:
            if node.op == PLACEHOLDER:
                self.inputs += 1
                self.where[node] = self.inputs
            else:
                calls.append(node)
                self.last_reader.update(dict.fromkeys(inputs_of(node), node))
        self.size = self.inputs + 1
        for node in calls:
            if self.is_flat(node):
                self.flat.add(node)
                for arg in node.args:
                    self.number_constant(arg)

    def number_constant(self, value: Any) -> None:
        """Give a constant a register, one for all that are the same."""
        if isinstance(value, Node):
            return
        key = key_of(value)
        if key in self.constants:
            return
        self.constants[key] = self.size
        self.pad.append(value)
        self.size += 1

    def is_flat(self, node: Node) -> bool:
        """Say whether all arguments can be read from registers."""
        if node.op not in (CALL_FUNCTION, CALL_METHOD, CALL_MODULE):
            return False
        shared = hasattr(node.target, "_schema")
        constants = [a for a in node.args if not isinstance(a, Node)]
        constants += node.kwargs.values()
        return not constants or all(may_share(value, shared) for value in constants)

    # -- second walk: instructions --------------------------------------------

    def add(self, node: Node) -> None:
        """Append the instruction of a node."""
        if node.op == PLACEHOLDER:
            return
        if node.op == OUTPUT:
            self.result = self.reader(node.args[0]) if node.args else NOTHING
            return
        fn, first, second = self.operation(node)
        dying = [self.where[g] for g in inputs_of(node) if self.last_reader[g] is node]
        target, *rest = dying or [self.new_register()]
        self.where[node] = target
        if node not in self.last_reader:  # nobody reads it: made, and dropped
            rest.append(target)
        self.free += rest
        self.emit(node, (fn, first, second, target))
        for dead in rest if self.clears(node) else ():
            self.emit(node, (NOTHING, None, None, dead))

    def clears(self, _: Node) -> bool:
        """Say whether what a node was the last to read goes at once, and not when it is reused."""
        return True

    def emit(self, node: Node, instruction: Instruction) -> None:
        """Append an instruction, and remember whose it is."""
        self.program.append(instruction)
        self.nodes.append(node)

    def new_register(self) -> int:
        """Give a register that holds nothing."""
        if self.free:
            return self.free.pop()
        self.size += 1
        return self.size - 1

    def operation(self, node: Node) -> tuple[Callable[..., Any], int | None, int | None]:
        """Give what an instruction calls, and its one or two registers."""
        if node.op == GET_ATTR:
            return self.attribute_reader(node), None, None
        fn = self.resolve(node)
        if node not in self.flat:
            return self.general(fn, node), None, None
        places = [self.register(arg) for arg in node.args]
        if node.kwargs:
            fn = partial(fn, **node.kwargs)
        if len(places) == 1:
            return fn, places[0], None
        if len(places) == 2:
            return fn, places[0], places[1]
        return flat_call(fn, places), None, None

    def register(self, value: Any) -> int:
        """Give the register of a node or constant."""
        return self.where[value] if isinstance(value, Node) else self.constants[key_of(value)]

    def general(self, fn: Callable[..., Any], node: Node) -> Reader:
        """Make a call whose arguments are built at each run."""
        args = [self.reader(value) for value in node.args]
        if not node.kwargs:
            return lambda r: fn(*[read(r) for read in args])
        named = [(k, self.reader(v)) for k, v in node.kwargs.items()]
        return lambda r: fn(*[read(r) for read in args], **{k: read(r) for k, read in named})

    def reader(self, value: Any) -> Reader:
        """Make the function that builds an argument from the registers."""
        if isinstance(value, Node):
            return itemgetter(self.where[value])
        if isinstance(value, dict):
            named = [(k, self.reader(v)) for k, v in value.items()]
            return lambda r: {k: read(r) for k, read in named}
        if not isinstance(value, (tuple, list, slice)):
            return lambda _: value
        if type(value) is list and len(value) > 1 and all(isinstance(v, Node) for v in value):
            get = itemgetter(*[self.where[v] for v in value])
            return lambda r: list(get(r))
        parts = [self.reader(v) for v in parts_of(value)]
        if isinstance(value, list):
            return lambda r: [read(r) for read in parts]
        if isinstance(value, slice) or hasattr(value, "_fields"):
            kind: Callable[..., Any] = type(value)
            return lambda r: kind(*[read(r) for read in parts])
        return lambda r: tuple([read(r) for read in parts])

    # -- what a node calls ----------------------------------------------------

    def own_target(self, node: Node) -> Callable[..., Any]:
        """Give what a node calls by itself."""
        if node.op == CALL_METHOD:
            return partial(call_method, node.target)
        if node.op == CALL_MODULE:
            return partial(call_module, self.attribute_reader(node))
        return called(node.target)  # type: ignore[no-any-return]

    def attribute_reader(self, node: Node) -> Reader:
        """Make the function that reads an attribute of the owning module."""
        get_attr, name = self.get_attr, node.target
        if get_attr is None:
            raise GraphError(
                f"node {node.name} reads an attribute, and there is no module",
                seen=line_of(node),
                fix="put the graph into a GraphModule, or give get_attr",
            )
        return lambda _: get_attr(name)


def call_method(name: str, owner: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a method by its name."""
    return getattr(owner, name)(*args, **kwargs)


def call_module(read: Reader, *args: Any, **kwargs: Any) -> Any:
    """Call the submodule that is there now."""
    return read([])(*args, **kwargs)


def flat_call(fn: Callable[..., Any], places: list[int]) -> Reader:
    """Make a call of none, or three and more, registers."""
    if not places:
        return lambda _: fn()
    get = itemgetter(*places)
    return lambda r: fn(*get(r))


def may_share(value: Any, with_operator: bool) -> bool:
    """Say whether one constant can serve every run.

    A list in a program is a new one at each run, for a callable that might
    keep or change it; an operator does neither.
    """
    if isinstance(value, Node):
        return False
    if isinstance(value, (list, dict)) and not with_operator:
        return False
    return all(may_share(part, with_operator) for part in parts_of(value))
