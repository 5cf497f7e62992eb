"""The tracer: the graph that is being recorded, and what is known of its values.

A tensor knows the newest node that made it; whether that node is of this
graph is asked at each use, since tensors outlive their traces. A tensor from
elsewhere becomes a constant of the program, and what the function makes of data
a copy of one (`made.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from polyop import tree
from polyop.dispatch.bits import BATCHED
from polyop.dispatch.context import word
from polyop.dispatch.objects import is_fake_object
from polyop.errors import CaptureError, DataDependentOutputError, FakeError, MissingFakeError
from polyop.graph import Graph, GraphModule, Node
from polyop.graph.node import CALL_FUNCTION, GET_ATTR, PLACEHOLDER, collect
from polyop.layers.trace.made import MadeData
from polyop.layers.trace.sizes import Sizes, add_assertions
from polyop.lazy import load
from polyop.schema.opaque import VALUE, is_input, is_reference, opaque_type
from polyop.source import caller
from polyop.symbolic import ShapeEnv, is_symbolic
from polyop.tensor.meta import META_SPACE, Meta, meta_of
from polyop.tensor.tensor import Tensor

#: What a call raises since it is traced; run for itself, it would not.
FAILURES = (FakeError, MissingFakeError)


class Tracer:
    """Records calls in a graph.

    Args:
        graph: where the nodes go.
        table: for an operator, the function that is traced instead of it.
        outside: the levels of transforms that the trace is inside of (`outside.py`).

    Attributes:
        constants: the values of the `get_attr` nodes, by name.
        made: the tensors that the function makes of data (`made.py`).
        failure: the first error of the trace itself; a function that catches it makes no program.
        inner: the graphs of traces that ran inside this one (`nested.py`).
        stray: the error for a thread that computes with its tensors and is not seen.
        knows_layouts: whether the program is only for inputs that lie as those of the trace.
        runs_once: whether what it records runs once, in the call that it records.
        whole_calls: whether a call on which an author's kernel acts above the trace is one node.
        around, acting: these calls, and the operator of the one that runs (`whole.py`).
        asked: what was asked of tensors besides shape, dtype and device, here and in traces inside.
    """

    stray: type[CaptureError] = CaptureError
    knows_layouts = False
    runs_once = False
    whole_calls = True
    acting: Any = None

    def __init__(
        self,
        graph: Graph | None = None,
        table: Mapping[Any, Callable[..., Any]] | None = None,
        *,
        outside: frozenset[Any] | None = None,
    ) -> None:
        recorder = word().recorder
        self.graph = Graph() if graph is None else graph
        self.table = table or {}
        self.constants: dict[str, Any] = {}
        self.made = MadeData()
        self.sizes = Sizes(self.graph)
        self._lifted: dict[int, tuple[Tensor, Node]] = {}
        if outside is None:
            outside = recorder.outside if recorder is not None else frozenset()
        self.outside = outside
        self._stand_ins: dict[int, tuple[Tensor, Tensor]] = {}
        #: The node of each opaque object, by the id of the real one, and what keeps that alive.
        self._objects: dict[int, tuple[Any, Node]] = {}
        self.failure: BaseException | None = None
        self.asked: set[str] = set()
        if isinstance(recorder, Tracer):
            self.asked, self.knows_layouts = recorder.asked, recorder.knows_layouts
        self.inner: list[Graph] = []
        self.around: list[Any] = []

    # -- values to nodes ------------------------------------------------------

    def placeholder(self, name: str, value: Any) -> Node:
        """Add an input; a tensor is known by it from now on."""
        val = describe(value) if isinstance(value, Tensor) else value
        node = self.graph.create_node(PLACEHOLDER, name, val=val)
        if isinstance(value, Tensor):
            value.graph_node = node
        elif is_input(value):
            self.track_object(value, node)
        return node

    def node_of(self, tensor: Tensor) -> Node:
        """Give the node of a tensor, which becomes a constant if it is from elsewhere."""
        try:
            node: Node = tensor.graph_node
        except AttributeError:
            return self.lift(tensor)
        return node if node.graph is self.graph else self.lift(tensor)

    def made_node(self, tensor: Tensor) -> Node | None:
        """Give the node of a tensor that has one by now."""
        if self.is_tracked(tensor):
            return tensor.graph_node  # type: ignore[no-any-return]
        return self._lifted.get(id(tensor), (tensor, None))[1]

    def is_tracked(self, tensor: Tensor) -> bool:
        """Tell whether some node of this graph made a tensor."""
        node = getattr(tensor, "graph_node", None)
        return node is not None and node.graph is self.graph

    def lift(self, tensor: Tensor) -> Node:
        """Give the node of a tensor that no call of this trace made: a constant."""
        known = self._lifted.get(id(tensor))
        if known is not None:
            return known[1]
        node = getattr(tensor, "graph_node", None)
        if node is not None and node.graph in self.inner:
            self._refuse_inner(tensor)
        name = f"_tensor_constant{len(self._lifted)}"
        self.constants[name] = tensor
        node = self.graph.create_node(GET_ATTR, name, val=describe(tensor))
        node = self.made.copied(self.graph, tensor, node)
        # The tensor is kept, so its id stays its own; its `graph_node` may be another trace's.
        self._lifted[id(tensor)] = (tensor, node)
        return node

    def _refuse_inner(self, tensor: Tensor) -> NoReturn:
        error = CaptureError(
            "a value that a trace inside computed is used outside of it",
            seen=f"{describe(tensor)}",
            source=caller(),
            fix="compute it again in this function, or run the program that the trace gives",
        )
        self.note_failure(error)
        raise error

    def written_constants(self) -> list[Tensor]:
        """Give the tensors from elsewhere that calls of this trace wrote."""
        found = [tensor for tensor, node in self._lifted.values() if node.op != GET_ATTR]
        return [tensor for tensor in found if tensor not in self.made]

    def note_made(self, tensor: Tensor, *, shared: bool) -> None:
        """Note a tensor that the function makes of data; what runs once is to have it itself."""
        if not self.runs_once:
            self.made.add(tensor, shared=shared)

    def before_write(self, tensor: Tensor) -> None:
        """Give a tensor that the function made its node while it has the data of that time."""
        if tensor in self.made:
            self.node_of(tensor)

    def keep_copied(self, node: Node, tensor: Tensor, at_first: Tensor) -> None:
        """Let a constant that the program copies at each run be what the tensor held at first."""
        self.constants[node.target] = at_first

    def stand_in(self, tensor: Tensor) -> Tensor:
        """Give the fake of a tensor from outside, whose node is a constant."""
        known = self._stand_ins.get(id(tensor))
        if known is None:
            fake: Tensor = load("polyop.layers.fake.mode:fake_outside")(tensor)
            fake.graph_node = self.lift(tensor)
            known = self._stand_ins[id(tensor)] = (tensor, fake)
        return known[1]

    def track_object(self, value: Any, node: Node) -> None:
        """Let an opaque object be known by a node."""
        self._objects[id(real_object(value))] = (value, node)

    def object_node(self, value: Any) -> Any:
        """Give the node of an opaque object; one from elsewhere becomes a constant (S183)."""
        real = real_object(value)
        if id(real) in self._objects:
            return self._objects[id(real)][1]
        found = opaque_type(value.__class__)
        assert found is not None
        if found.kind == VALUE:
            return value
        rebuild = found.reconstruct_fn
        node = None if rebuild is None else rebuild(real, self._node_of_object, self)
        node = self.lift_object(value) if node is None else node
        self.track_object(value, node)
        return node

    def lift_object(self, value: Any) -> Node:
        """Add the node of an opaque object that no call of this trace made: a constant."""
        name = f"_opaque_constant{len(self._objects)}"
        self.constants[name] = real_object(value)
        return self.graph.create_node(GET_ATTR, name, val=value)

    def _node_of_object(self, value: Any) -> Node | None:
        known = self._objects.get(id(real_object(value)))
        return None if known is None else known[1]

    def written(self, tensor: Tensor, node: Node) -> None:
        """Let a tensor be known by the node that wrote it last."""
        if id(tensor) in self._lifted:
            self._lifted[id(tensor)] = (tensor, node)
        else:
            tensor.graph_node = node

    def value(self, value: Any) -> Any:
        """Give what stands for a value of any kind among a node's arguments."""
        if value.__class__ in _PLAIN:
            return value
        if isinstance(value, Tensor):
            return self.node_of(value)
        if is_symbolic(value):
            return self.sizes.node(value)
        if value.__class__ is list:
            return [self.value(v) for v in value]
        if not isinstance(value, (tuple, dict)):
            return self.record_node(value) or (
                self.object_node(value) if is_input(value) else value
            )
        if value.__class__ is dict:
            return {k: self.value(v) for k, v in value.items()}
        if isinstance(value, tuple):
            parts = [self.value(v) for v in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        return tree.map_leaves(self.value, value)

    def record_node(self, value: Any) -> Node | None:
        """Record the making of a record with tensors in it, or give None for anything else."""
        values = tree.record_values(value)
        given = None if values is None else tuple(map(self.value, values))
        found: dict[Node, None] = {}
        collect(given, found)
        if not found:
            return None
        rest = tree.rest_of(value)
        target, head = (tree.build_record, ()) if rest is None else (tree.remake_record, (rest,))
        node = self.graph.create_node(
            CALL_FUNCTION, target, (value.__class__, *head, *(given or ()))
        )
        node.val = described(value)
        return node

    # -- calls ----------------------------------------------------------------

    def record(
        self, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> Node:
        """Add a call of anything, with values for arguments, and what it gave."""
        given = tuple([self.value(a) for a in args])
        named = {k: self.value(v) for k, v in kwargs.items()}
        node = self.graph.create_node(CALL_FUNCTION, target, given, named)
        self.results(node, result, [a for a in args if isinstance(a, Tensor)])
        return node

    def results(self, node: Node, result: Any, written: Sequence[Tensor] = ()) -> None:
        """Let the tensors of a result be known by a node, and by the items taken out of it."""
        node.val = described(result)
        if isinstance(result, Tensor):
            if any(result is t for t in written):
                self.written(result, node)
            else:
                result.graph_node = node
        elif isinstance(result, (tuple, list)):
            for i, item in enumerate(result):
                self._item(node, i, item, written)
        elif isinstance(result, dict):
            for key, item in result.items():
                self._item(node, key, item, written)
        elif tree.record_values(result) is not None:
            names, items = tree.children(result)
            for name, item in zip(names, items or (), strict=True):
                self._item(node, name, item, written, tree.field_of)
        elif is_reference(result):
            self.track_object(result, node)

    def _item(
        self,
        node: Node,
        key: Any,
        item: Any,
        written: Sequence[Tensor],
        take: Callable[..., Any] = operator.getitem,
    ) -> None:
        kinds = isinstance(item, (Tensor, list, tuple, dict)) or tree.record_values(item)
        if kinds or is_symbolic(item) or is_reference(item):
            taken = self.graph.create_node(CALL_FUNCTION, take, (node, key))
            self.results(taken, item, written)

    def add_users(self, node: Node, value: Any) -> None:
        """Tell the nodes inside an argument that a node reads them."""
        found: dict[Node, None] = {}
        collect(value, found)
        for given in found:
            given.users[node] = None

    # -- data -----------------------------------------------------------------

    def look(self, tensor: Tensor, what: str) -> Any:
        """Give the data of a constant, or refuse: a traced value has no data yet.

        Raises:
            DataDependentOutputError: the tensor was computed in the trace.
        """
        payload = tensor.payload
        held = not self.is_tracked(tensor) and not hasattr(payload, "look")
        if held and not self.made.is_behind(tensor):
            return payload
        error = DataDependentOutputError(
            f"{what}() looks at the data of a traced tensor, which is known only at run time",
            seen=f"{describe(tensor)}",
            source=caller(),
            fix="leave this out of the traced function, or make an operator of it",
        )
        if not tensor.keys & BATCHED:  # there it is an error without the trace too
            self.note_failure(error)
        raise error

    # -- what it does not see -------------------------------------------------

    def elsewhere(self, op: Any, values: Sequence[Any]) -> Any:
        """Meet a call on fakes of the trace, by a thread that it does not see: it has no program.

        Returns:
            `NotImplemented`: the call goes on, on fakes.
        """
        self.note_failure(
            self.stray(
                "another thread computes with a tensor of the function",
                op=op._schema,
                source=caller(),
                fix="run the thread in contextvars.copy_context(), or compute without it",
            )
        )
        return NotImplemented

    # -- the end --------------------------------------------------------------

    def note_failure(self, error: BaseException) -> None:
        """Keep an error of the trace itself, which leaves no program."""
        self.failure = self.failure or error

    def refuse_failure(self) -> None:
        """Raise what was noted, if the function caught it."""
        if self.failure is not None:
            raise self.failure

    def finish(
        self, result: Any, env: ShapeEnv | None = None, class_name: str = "GraphModule"
    ) -> GraphModule:
        """Add the assertions and the result, and give the program.

        Raises:
            BaseException: the failure that was noted.
        """
        self.refuse_failure()
        if env is not None:
            add_assertions(self.sizes, env)
        leaves, spec = tree.flatten(result)
        self.graph.output(tree.unflatten(spec, [self.value(leaf) for leaf in leaves]))
        for kept in self.made.settle(self.graph):
            self.keep_copied(*kept)
        if self.around:
            load("polyop.layers.trace.whole:settle")(self.graph, self.around)
        return GraphModule(self.constants, self.graph, class_name)


_PLAIN = frozenset({int, float, bool, str, complex, type(None)})


def real_object(value: Any) -> Any:
    """Give the object that a fake stands for, or the fake itself if the trace made it."""
    if not is_fake_object(value):
        return value
    original = load("polyop.objects.fakes:original_of")(value)
    return value if original is None else original


def describe(tensor: Tensor) -> Meta:
    """Give the meta that a node keeps of a tensor: its arrays are not kept alive."""
    payload = tensor.payload
    return payload if payload.__class__ is Meta else meta_of(tensor, META_SPACE)


def described(result: Any) -> Any:
    """Give what a node keeps of a result of any kind."""
    if isinstance(result, Tensor):
        return describe(result)
    if result.__class__ in {tuple, list}:
        return result.__class__([described(x) for x in result])
    if isinstance(result, (tuple, dict)) or tree.record_values(result) is not None:
        return tree.map_leaves(described, result)
    return result
