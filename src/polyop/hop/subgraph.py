"""Subgraphs: the functions that higher-order operators take, as graphs of their own.

NOTE [A subgraph is closed]
A program keeps a subgraph as a `GraphModule`, an attribute that a `get_attr`
node reads. What the function uses of the trace around it (tensors that it
closes over, sizes) become inputs of the module behind its own, and operands
of the call: so a subgraph alone says what a call reads, and gradients, batches
and passes need look at operands only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD, WRAPPED
from polyop.dispatch.context import AUTOGRAD, run_under, word
from polyop.dispatch.pre_dispatch import with_pre_dispatch
from polyop.errors import GraphError, SubgraphError
from polyop.graph import Graph, GraphModule, Node
from polyop.graph.node import CALL_FUNCTION, GET_ATTR, PLACEHOLDER
from polyop.graph.text import line_of
from polyop.hop.forms import written_at
from polyop.hop.questions import recorded, refuse_unknown
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.trace.make_fx import fresh_input, leaf_names
from polyop.layers.trace.proxy import ProxyMode
from polyop.layers.trace.sizes import Sizes, add_assertions
from polyop.layers.trace.tracer import Tracer, describe
from polyop.source import UNKNOWN, Source, caller
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor


@dataclass(frozen=True)
class Subgraph:
    """A traced subgraph.

    Attributes:
        module: the program; its inputs are the leaves of the operands, then `lifted`.
        lifted: what the function used of its surroundings: tensors and sizes.
        result: what the function gave, in the trace.
        breaches: each write to an input, and each result that is an input or a view of one.
        source: where the function is written.
    """

    module: GraphModule
    lifted: tuple[Any, ...]
    result: Any
    breaches: tuple[Breach, ...]
    source: Source

    @property
    def written(self) -> tuple[int, ...]:
        """The inputs that are written, by position."""
        return tuple(dict.fromkeys(b.position for b in self.breaches if b.what == "writes"))


@dataclass(frozen=True)
class Breach:
    """What a subgraph does to an input that it may not.

    Attributes:
        by: the operator whose kernel writes what its schema does not say, or None.
    """

    what: str
    position: int
    name: str
    line: str
    source: Source
    by: Any = None


def trace_subgraph(
    fn: Callable[..., Any],
    operands: Sequence[Any],
    *,
    tracer: Tracer | None = None,
    strict: bool = True,
    pre_dispatch: bool = False,
    op: Any = "",
    free: Sequence[Any] = (),
    graded: bool = False,
) -> Subgraph:
    """Trace a function into a graph of its own; the trace around it sees nothing of it.

    Args:
        fn: a function of tensors, in any nesting of containers, or a `GraphModule`.
        operands: what it is called with.
        tracer: the trace around; by default the one that records now, if any.
        strict: refuse writes to inputs, and results that are inputs or views of them.
        pre_dispatch: record calls before autograd and decompositions act.
        op: the operator, for errors.
        free: tensors and sizes from outside that are inputs behind the operands in any case.
        graded: whether some operand of the call requires grad.

    Raises:
        CaptureError: the function asks of a tensor what its trace cannot know.
        SubgraphError: the function breaks what `strict` asks, or uses a tensor of a
            transform that is not among its operands.
    """
    outer = word().recorder if tracer is None else tracer
    leaves, spec = tree.flatten(tuple(operands))
    mode = fake_mode_of(leaves)
    repeats = getattr(fn, "repeats", False)
    inner = SubgraphTracer(outer, str(op), graded=graded, repeats=repeats)
    given = [inner.input(mode, *pair) for pair in zip(_names(fn, operands), leaves, strict=True)]
    inner.take(free)
    # The operator may be called below autograd; what its function calls may not.
    exclude = word().exclude - AUTOGRAD
    plain = word().but(tracer=None, pre=(), fake=mode, exclude=exclude)
    proxy = ProxyMode(inner) if pre_dispatch else None
    under = plain.but(tracer=inner) if proxy is None else with_pre_dispatch(plain, proxy)
    result = run_under(under, recorded(inner, fn), *tree.unflatten(spec, given))
    if proxy is not None:
        proxy.note(plain)
    inner.check_results(result)
    if mode is not None and mode.shape_env is not None:
        run_under(plain, add_assertions, Sizes(inner.graph), mode.shape_env)
    module: GraphModule = run_under(plain, inner.finish, result)
    found = Subgraph(module, tuple(inner.free), result, tuple(inner.breaches), written_at(fn))
    if strict:
        refuse_breaches(found, op)
    return found


def _names(fn: Callable[..., Any], operands: Sequence[Any]) -> list[str]:
    if hasattr(fn, "leaf_names"):
        return list(fn.leaf_names(operands))
    if isinstance(fn, GraphModule):
        names = [str(n.target) for n in fn.graph.placeholders]
        if len(names) == len(tree.leaves(tuple(operands))):
            return names
    return leaf_names(fn, operands)


def fake_mode_of(leaves: Sequence[Any]) -> FakeTensorMode | None:
    """Give the fake mode of some values, or the one that is entered."""
    for leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.payload.__class__ is Meta and leaf.payload.space.mode:
            found: FakeTensorMode = leaf.payload.space.mode
            return found
    active: FakeTensorMode | None = word().fake
    return active


class SubgraphTracer(Tracer):
    """Records a subgraph; what it uses of its surroundings becomes an input.

    Attributes:
        free: what was used, in the order of the inputs that stand for it.
        breaches: what was done to inputs.
        graded: whether some operand of the call requires grad.
        flagged: whether the inputs say which of them do.
        repeats: whether the function has run before, for a gradient.
    """

    def __init__(
        self, outer: Tracer | None, op: str = "", *, graded: bool = False, repeats: bool = False
    ) -> None:
        super().__init__(table=None if outer is None else outer.table)
        if outer is not None:
            self.asked, self.knows_layouts = outer.asked, outer.knows_layouts
        self.outer = outer
        self.op = op
        self.graded = graded or getattr(outer, "graded", False)
        self.flagged = False
        self.repeats = repeats or getattr(outer, "repeats", False)
        self.free: list[Any] = []
        self.breaches: list[Breach] = []
        self.sizes: Sizes = SubgraphSizes(self)
        self._inputs: dict[int, tuple[int, str, Tensor, int]] = {}
        self._count = 0
        self._last_input = self.graph.root

    def input(self, mode: FakeTensorMode | None, name: str, leaf: Any) -> Any:
        """Add the placeholder of an operand, and give what the function gets for it."""
        value = leaf
        if isinstance(leaf, Tensor):
            self._refuse_wrapped(leaf)
            refuse_subclass(self.op, leaf)
            value = fresh_input(leaf if mode is None else mode.constant(leaf), None, name)
            self._inputs[id(value)] = (self._count, name, value, value._version)
            self.flagged |= bool(value.keys & GRAD)
        self._last_input = self.placeholder(name, value)
        self._count += 1
        return value

    def stand_in(self, tensor: Tensor) -> Tensor:
        """Give what the trace around has in the place of a tensor from outside of it."""
        return super().stand_in(tensor) if self.outer is None else self.outer.stand_in(tensor)

    def lift(self, tensor: Tensor) -> Node:
        """Give the input that stands for a tensor from outside."""
        known = self._lifted.get(id(tensor))
        if known is not None:
            return known[1]
        self._refuse_wrapped(tensor)
        node = self.add_free(f"free{len(self.free)}", tensor, describe(tensor))
        copy = self.made.copied(self.graph, tensor, node)
        self._lifted[id(tensor)] = (tensor, copy)
        if copy is not node:
            return copy
        self._inputs[id(tensor)] = (self._count - 1, node.target, tensor, tensor._version)
        return node

    def keep_copied(self, node: Node, tensor: Tensor, at_first: Tensor) -> None:
        """Let the input that the program copies be what the tensor held at first."""
        self.free = [at_first if value is tensor else value for value in self.free]

    def lift_object(self, value: Any) -> Node:
        """Give the input that stands for an opaque object from outside."""
        return self.add_free(f"free{len(self.free)}", value, value)

    def take(self, values: Sequence[Any]) -> None:
        """Add inputs for values from outside, whether they are used or not."""
        for value in values:
            count = len(self.free)
            self.value(value)
            if len(self.free) == count:  # a size that some operand has
                self.add_free(f"free{count}", value, value)

    def add_free(self, name: str, value: Any, val: Any) -> Node:
        """Add an input behind the others for a value from outside."""
        graph: Graph = self.graph
        with inserting_behind(graph, self._last_input):
            node = graph.create_node(PLACEHOLDER, name, val=val)
        self._last_input = node
        self._count += 1
        self.free.append(value)
        return node

    def note_failure(self, error: BaseException) -> None:
        """Keep an error of the trace, which the one around it has too."""
        super().note_failure(error)
        if self.outer is not None:
            self.outer.note_failure(error)

    def _refuse_wrapped(self, tensor: Tensor) -> None:
        if tensor.keys & WRAPPED:
            kind = tensor.payload.level.kind
            raise SubgraphError(
                f"a subgraph uses a tensor of {kind} that is not among its operands",
                op=self.op,
                seen=f"shape {tuple(tensor.shape)}",
                source=caller(),
                fix="pass the tensor to the function as an operand",
            )

    # -- what is asked --------------------------------------------------------

    def doubt(self, tensor: Tensor, name: str) -> None:
        """Refuse a question that a plain call may answer in another way."""
        refuse_unknown(self, tensor, name)

    def is_input(self, tensor: Tensor) -> bool:
        """Tell whether a tensor stands for an operand, or for what the function used beside."""
        return id(tensor) in self._inputs

    # -- what is done to inputs -----------------------------------------------

    def written(self, tensor: Tensor, node: Node) -> None:
        """Let a tensor be known by the node that wrote it, and note a write to an input."""
        super().written(tensor, node)
        self._note("writes", tensor, node, caller())

    def _note(self, what: str, tensor: Tensor, node: Node | None, source: Source) -> None:
        known = self._inputs.get(id(tensor)) or self._inputs.get(id(tensor._base))
        if known is not None:
            line = "" if node is None else line_of(node)
            schema = getattr(self.acting, "_schema", None)
            by = None if schema is None or schema.is_mutable else self.acting
            self.breaches.append(Breach(what, known[0], known[1], line, source, by))

    def check_results(self, result: Any) -> None:
        """Note results that are inputs, and writes by operators that return nothing."""
        noted = {b.position for b in self.breaches}
        for position, name, tensor, version in list(self._inputs.values()):
            if tensor._version != version and position not in noted:
                self.breaches.append(Breach("writes", position, name, "", UNKNOWN))
        for leaf in tree.leaves(result):
            if isinstance(leaf, Tensor):
                self._refuse_wrapped(leaf)
                if self.is_tracked(leaf) or id(leaf) in self._inputs:
                    self._note("returns", leaf, getattr(leaf, "graph_node", None), UNKNOWN)


def refuse_subclass(op: Any, tensor: Tensor) -> None:
    """Refuse an operand of a class of its own: a program is one of plain tensors.

    Raises:
        SubgraphError: it is one.
    """
    if type(tensor) is not Tensor:
        raise SubgraphError(
            f"an operand of a traced subgraph is a {type(tensor).__name__}",
            op=op,
            declared="Tensor",
            fix="give the operator the tensors inside, and make the subclass in the function",
        )


class SubgraphSizes(Sizes):
    """The sizes of a subgraph; one that is not in it is an input from the trace around."""

    __slots__ = ("tracer",)

    def __init__(self, tracer: SubgraphTracer) -> None:
        super().__init__(tracer.graph)
        self.tracer = tracer

    def place(self, name: str) -> Node | tuple[Node, int]:
        """Give the node of a symbol, or a node and the axis that has it."""
        try:
            return super().place(name)
        except GraphError:
            if self.tracer.outer is None:
                raise
        place = self.tracer.outer.sizes.place(name)
        value = place.val if isinstance(place, Node) else place[0].val.shape[place[1]]
        node = self._symbols[name] = self.tracer.add_free(name, value, value)
        return node


@contextmanager
def inserting_behind(graph: Graph, node: Node) -> Iterator[None]:
    """Put new nodes behind a node, or in front of all."""
    if node is graph.last:  # an empty graph too
        yield
        return
    with graph.inserting_before(node.next):
        yield


def refuse_breaches(found: Subgraph, op: Any = "") -> None:
    """Raise the error of a subgraph that writes an input, or returns one (S181).

    Raises:
        SubgraphError: it does.
    """
    for breach in found.breaches:
        does = "writes its" if breach.what == "writes" else "returns memory of its"
        told = f"a subgraph {does} input {breach.name!r}"
        fix = "return a new tensor: use the operator without the underscore, or .clone()"
        if breach.by is not None:
            told += f": a kernel of {breach.by.name()} does, and its schema does not say so"
            fix = "let the kernel write to a clone of its argument"
        raise SubgraphError(
            told,
            op=op,
            argument=f"{breach.name} (operand {breach.position})",
            seen=breach.line,
            source=found.source if breach.source is UNKNOWN else breach.source,
            fix=fix,
        )


# -- subgraphs in a trace -----------------------------------------------------


def add_module(tracer: Tracer, module: Any, base: str) -> Node:
    """Give the node that reads a subgraph, which becomes an attribute of the program."""
    for node in tracer.graph.nodes:
        if node.op == GET_ATTR and tracer.constants.get(node.target) is module:
            return node
    number = 0
    while f"{base}_{number}" in tracer.constants:
        number += 1
    name = f"{base}_{number}"
    tracer.constants[name] = module
    return tracer.graph.create_node(GET_ATTR, name, val=module)


def record_call(
    tracer: Tracer, hop: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any
) -> Any:
    """Add a call of a higher-order operator to a trace, and give its result, known by the node.

    Args:
        tracer: the trace.
        hop: the operator.
        args: what it was called with; a `GraphModule` becomes an attribute of the program.
        kwargs: the same by name.
        result: what it gave; tensors that are arguments are handed on as they are.
    """

    def node_of(value: Any) -> Any:
        if isinstance(value, GraphModule):
            return add_module(tracer, value, f"{hop}_subgraph")
        return tracer.value(value)

    given, named = tree.map_leaves(node_of, (tuple(args), dict(kwargs)))
    node = tracer.graph.create_node(CALL_FUNCTION, hop, given, named)
    tracer.results(node, result)
    return result
