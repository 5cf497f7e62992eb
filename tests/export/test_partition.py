"""Parts of a graph are convex, run in some order, are few, and change nothing (S216)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import Tensor, errors
from polyop.export import (
    CompileSpec,
    Dim,
    LoweredModule,
    Part,
    Program,
    call_delegate,
    export,
    load,
    partition,
    register_backend,
    save,
    to_backend,
)
from polyop.graph import Graph, GraphModule, Node
from polyop.library import EffectType

core = polyop.ops.core


class Counting:
    """A backend that runs the program itself, and counts its runs."""

    def __init__(self, backend_id: str, names: Sequence[str]) -> None:
        self.backend_id = backend_id
        self.names = frozenset(names)
        self.runs = 0

    def takes(self, node: Node) -> bool:
        return getattr(node.target, "_opname", "") in self.names

    def lower(self, program: Program, compile_specs: Sequence[CompileSpec]) -> bytes:
        return b"of " + self.backend_id.encode()

    def executor(self, lowered: LoweredModule) -> Any:
        run = lowered.original_module.module()

        def execute(*args: Any) -> Any:
            self.runs += 1
            return run(*args)

        return execute


A = Counting("count_a", ["sin", "multiply"])
B = Counting("count_b", ["cos", "multiply", "add"])
register_backend(A)
register_backend(B)
UNARY = ["sin", "cos", "exp_", "tanh"]


@st.composite
def programs(draw: st.DrawFn) -> tuple[GraphModule, int]:
    """A random graph of one and two operands; some write, some draw random numbers."""
    graph = Graph()
    nodes = [graph.placeholder(f"x{i}") for i in range(draw(st.integers(1, 3)))]
    count = len(nodes)
    for _ in range(draw(st.integers(1, 14))):
        a, b = (nodes[draw(st.integers(max(0, len(nodes) - 6), len(nodes) - 1))] for _ in range(2))
        kind = draw(st.sampled_from(["sin", "cos", "tanh", "multiply", "add", "write"]))
        if kind == "write":
            own = graph.call_function(core.clone.default, (a,))
            nodes.append(own)
            nodes.append(graph.call_function(core.sin_.default, (own,)))
        elif kind in ("multiply", "add"):
            nodes.append(graph.call_function(getattr(core, kind).default, (a, b)))
        else:
            nodes.append(graph.call_function(getattr(core, kind).default, (a,)))
    results = [n for n in nodes[count:] if not n.users or draw(st.booleans())]
    graph.output(results)
    graph.lint()
    return GraphModule({}, graph), count


def reachable(start: Node) -> set[Node]:
    found: set[Node] = set()
    waiting = [start]
    while waiting:
        for user in waiting.pop().users:
            if user not in found:
                found.add(user)
                waiting.append(user)
    return found


def check_parts(graph: Graph, parts: list[Part]) -> None:
    """Hold the parts against the definitions, slowly."""
    owner = {node: i for i, part in enumerate(parts) for node in part.nodes}
    assert sum(len(part.nodes) for part in parts) == len(owner), "a node is in two parts"
    for node, i in owner.items():
        assert parts[i].backend.takes(node) and not polyop.graph.is_impure(node)
    # With each part one node, nothing runs in a circle; so each part is convex too.
    unit = {node: owner.get(node, node) for node in graph.nodes}
    edges: dict[Any, set[Any]] = {}
    for node in graph.nodes:
        for given_ in node.all_input_nodes:
            if unit[given_] != unit[node]:
                edges.setdefault(unit[node], set()).add(unit[given_])
    done: set[Any] = set()
    while len(done) < len(set(unit.values())):
        ready = {u for u in set(unit.values()) - done if edges.get(u, set()) <= done}
        assert ready, "the parts wait for each other"
        done |= ready
    for part in parts:
        inside = set(part.nodes)
        for node in part.nodes:
            for outside in reachable(node) - inside:
                assert not reachable(outside) & inside, "a part is not convex"


def fewest(graph: Graph, backend: Counting) -> int:
    """The parts that some path needs: it leaves the backend, and comes back to it."""
    needs: dict[Node, int] = {}
    for node in graph.nodes:
        taken = node.op == "call_function" and backend.takes(node)
        through = [needs[g] + (taken and not backend.takes(g)) for g in node.all_input_nodes]
        needs[node] = max(through, default=int(taken))
    return max(needs.values(), default=0)


@given(programs())
@settings(max_examples=150, deadline=None)
def test_parts_are_convex_and_disjoint(made: tuple[GraphModule, int]) -> None:
    """S216: parts take no node twice, none with a write, and can run one after another."""
    module, _ = made
    for backends in (A, [A, B], [B, A]):
        check_parts(module.graph, partition(module, backends))


@given(programs())
@settings(max_examples=100, deadline=None)
def test_everything_that_is_taken_is_in_as_few_parts_as_can_be(
    made: tuple[GraphModule, int],
) -> None:
    """S216: without writes, all that a backend takes is in parts, and no fewer parts would do."""
    module, _ = made
    writes = any(n.target is core.sin_.default for n in module.graph.nodes)
    parts = partition(module, A)
    taken = {n for n in module.graph.nodes if n.op == "call_function" and A.takes(n)}
    assert {n for part in parts for n in part.nodes} == taken
    if not writes:
        assert len(parts) == fewest(module.graph, A)


@given(programs(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_a_lowered_program_gives_the_same(made: tuple[GraphModule, int], seed: int) -> None:
    """S216: with its parts run by two backends, a program gives the same bits."""
    module, count = made
    rng = np.random.default_rng(seed)
    args = tuple(polyop.from_numpy(rng.normal(size=(3,)).astype("float32")) for _ in range(count))
    program = export(module, args)
    lowered = to_backend(program, [A, B])
    left = [n for n in lowered.graph.nodes if n.op == "call_function"]
    assert not any(A.takes(n) or B.takes(n) for n in left)
    found, wanted = lowered.module()(*args), module(*args)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(found, wanted, strict=True))


def test_two_backends_may_not_wait_for_each_other() -> None:
    """S216: parts that are convex alone but wait for each other are not made."""
    graph = Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    a1 = graph.call_function(core.sin.default, (x,))
    b1 = graph.call_function(core.cos.default, (a1,))
    b2 = graph.call_function(core.cos.default, (y,))
    a2 = graph.call_function(core.sin.default, (b2,))
    graph.output([b1, a2])
    parts = partition(graph, [A, B])
    check_parts(graph, parts)
    assert sorted(len(part.nodes) for part in parts) == [1, 1, 2] or len(parts) >= 3


def test_effects_and_random_draws_stay_outside() -> None:
    """S216: what writes, draws or has an effect is in no part, and keeps its order."""

    class All(Counting):
        def takes(self, node: Node) -> bool:
            return True

    everything = register_backend(All("count_all", []))

    def f(x: Tensor) -> Tensor:
        rows = polyop.argwhere(x)
        polyop.check(rows.shape[0] > 1)
        return (x * polyop.rand(3) + polyop.rand(3)).sin() + rows.sum()

    program = export(f, (polyop.ones(3),))
    lowered = to_backend(program, everything)
    names = [str(n.target) for n in lowered.graph.nodes if n.op == "call_function"]
    assert sum("rand" in name for name in names) == 2
    assert not any("sin" in name for name in names)
    polyop.manual_seed(3)
    found = lowered.module()(polyop.ones(3))
    polyop.manual_seed(3)
    assert polyop.allclose(found, f(polyop.ones(3)))
    with pytest.raises(errors.UsageError):
        lowered.module()(polyop.zeros(3))


LOG: list[str] = []


@polyop.custom_op("test_partition::note", mutates_args=())
def note(x: Tensor, text: str) -> Tensor:
    LOG.append(text)
    return x.clone()


@note.register_fake
def _(x, text):
    return polyop.empty_like(x)


polyop.library.register_effect(note, EffectType.ORDERED)


def test_effects_keep_their_order_without_tokens(tmp_path) -> None:
    """S190: exported, lowered and loaded programs have no tokens, and effects in order."""

    def f(x: Tensor) -> Tensor:
        note(x.sin(), "first")
        y = note(x * 2, "second").sin()
        note(x, "third")
        return y

    program = to_backend(export(f, (polyop.ones(3),)), A)
    assert "token" not in str(program.graph) and "with_effects" not in str(program.graph)
    save(program, tmp_path / "p")
    for module in (program.module(), load(tmp_path / "p").module()):
        LOG.clear()
        module(polyop.ones(3))
        assert LOG == ["first", "second", "third"]


def test_a_thousand_nodes_are_divided_in_one_walk() -> None:
    """S216: a backend is asked about each node once, however long the graph."""
    asked: list[Node] = []

    class Asked(Counting):
        def takes(self, node: Node) -> bool:
            asked.append(node)
            return super().takes(node)

    graph = Graph()
    node = graph.placeholder("x")
    for i in range(1000):
        node = graph.call_function(core.sin.default if i % 3 else core.tanh.default, (node,))
    graph.output(node)
    parts = partition(graph, Asked("asked", ["sin"]))
    assert len(asked) == 1000 and len(parts) == 333 and len(parts[0].nodes) == 2


def test_a_part_keeps_constants_and_is_given_parameters_and_sizes() -> None:
    """S216: a part's program is a program: inputs, results, constants, in the same ranges."""
    weight, table = polyop.ones(4, requires_grad=True), polyop.full((4,), 2.0)

    def f(x: Tensor) -> Tensor:
        return (x * weight).sin() * table * x.shape[0]

    lowered = to_backend(export(f, (polyop.ones((3, 4)),), dynamic_shapes=({0: Dim("n")},)), A)
    part = lowered.state["lowered_module_0"]
    assert "lowered_module_1" not in lowered.state
    assert part.original_module.signature.constants == ("table",)
    assert [spec.kind for spec in part.original_module.signature.inputs].count("size") == 1
    assert "weight" in lowered.state and "table" not in lowered.state
    x = polyop.ones((5, 4))
    assert polyop.allclose(lowered.module()(x), f(x))
    assert polyop.allclose(polyop.autograd.grad([lowered.module()(x).sum()], [weight])[0],
                           polyop.autograd.grad([f(x).sum()], [weight])[0])  # fmt: skip


def test_a_lowered_program_can_be_lowered_further() -> None:
    """S216: a second backend takes what the first one left; parts keep names of their own."""
    f = lambda x: (x.sin().tanh() * 2).cos()  # noqa: E731
    first = to_backend(export(f, (polyop.ones(3),)), A)
    second = to_backend(first, B)
    assert list(second.state) == ["lowered_module_0", "lowered_module_1", "lowered_module_2"]
    assert second.state["lowered_module_0"] is first.state["lowered_module_0"]
    assert polyop.allclose(second.module()(polyop.ones(3)), f(polyop.ones(3)))


def test_mistakes_are_named() -> None:
    """S216: an unknown backend, a thing that is no backend, and no program are errors."""
    program = export(lambda x: x + 1, (polyop.ones(3),))
    with pytest.raises(errors.DelegateError, match="no backend 'onxx'; did you mean 'onnx'"):
        to_backend(program, "onxx")
    with pytest.raises(errors.UsageTypeError, match="a backend has backend_id"):
        register_backend(object())
    with pytest.raises(errors.UsageTypeError, match="takes a Program"):
        to_backend(lambda x: x, A)
    with pytest.raises(errors.DelegateError, match="neither a program nor a payload"):
        LoweredModule(None, "count_a")
    assert operator.length_hint(partition(program.graph_module, A)) == 0
    assert call_delegate.name() == "call_delegate"
