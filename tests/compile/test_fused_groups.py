"""Which calls become one loop, and in what order all of them run (SPEC S210, S211)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import Tensor
from polyop.graph import GraphModule, make_fx

GROUPS = importlib.import_module("polyop.compile.fused.groups")
BACKEND = importlib.import_module("polyop.compile.fused.backend")
RUNNER = importlib.import_module("polyop.graph.runner")


def groups_of(fn: Any, *inputs: Tensor) -> list[list[str]]:
    items = GROUPS.items_of(make_fx(fn, tracing_mode="fake")(*inputs).graph)
    return [[n.name for n in item.members] for item in items if isinstance(item, GROUPS.Group)]


def in_groups(module: GraphModule) -> Any:
    """Run a graph with its groups, each by its own operators; no compiler is needed."""
    items = GROUPS.items_of(module.graph)
    run = BACKEND.FusedRun(module, items, True)
    groups = [item for item in items if isinstance(item, GROUPS.Group)]
    graph = run._graph({group: run._plain(group) for group in groups})
    graph.lint()
    return RUNNER.compile_program(graph, get_attr=module.get_attr)


Step = tuple[str, int, int]
KINDS = [
    "add", "multiply", "exp", "where", "clone", "sum", "transpose", "matmul", "row", "write",
    "view", "half", "flip",
]  # fmt: skip


def run(steps: list[Step], x: Tensor, y: Tensor) -> list[Tensor]:
    values = [x, y]
    for kind, i, j in steps:
        a, b = values[i % len(values)], values[j % len(values)]
        if kind == "write":
            a.multiply_(0.5)
            continue
        made = {
            "add": lambda: a + b,
            "multiply": lambda: a * b,
            "exp": lambda: (a * 0.01).exp(),
            "where": lambda: polyop.where(a > b, a, 0.5),
            "clone": lambda: a.clone(),
            "sum": lambda: a + b.sum(0, keepdims=True) * 0.01,
            "transpose": lambda: a.transpose(0, 1) * 0.5,
            "matmul": lambda: (a @ b) * 0.01,
            "row": lambda: b + a[:1],
            "view": lambda: a[:],
            "half": lambda: a.astype(polyop.float16).astype(polyop.float64),
            "flip": lambda: polyop.flip(a, 0),
        }[kind]
        values.append(made())
    return values[2:] or [x + 0]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9)), max_size=16)
)
def test_grouped_graphs_equal_eager(steps: list[Step]) -> None:
    """S211: however pointwise calls, others, views and writes alternate, results stay."""

    def inputs() -> list[Tensor]:
        rng = np.random.default_rng(0)
        return [polyop.from_numpy(rng.normal(size=(4, 4))) for _ in range(2)]

    captured: list[Any] = []

    def backend(module: GraphModule, _: Any) -> Any:
        captured.append(module)
        return in_groups(module)

    backend.takes_tokens = False  # type: ignore[attr-defined]
    given, plain = inputs(), inputs()
    compiled = polyop.compile(lambda x, y: run(steps, x, y), backend=backend, fullgraph=True)
    found, expected = compiled(*given), run(steps, *plain)
    assert captured
    for a, b in zip([*found, *given], [*expected, *plain], strict=True):
        assert np.array_equal(a.numpy(), b.numpy(), equal_nan=True) and a.dtype == b.dtype
        assert a.stride() == b.stride()


def test_what_a_group_is() -> None:
    """S211: calls of one shape and layout are one group, across branches and past other calls."""
    x, y = polyop.ones(4, 3), polyop.ones(4, 3)

    def f(x: Tensor, y: Tensor) -> Any:
        a = x * y
        total = a.sum()
        return a + 1, (a - y).abs(), x / y, total

    assert groups_of(f, x, y) == [["multiply", "add", "subtract", "abs", "divide"]]


def test_what_parts_groups() -> None:
    """S211: a write, a value that comes back from outside, another shape or layout parts groups."""
    x, y = polyop.ones(3, 3), polyop.ones(3, 3)

    def write(x: Tensor, y: Tensor) -> Tensor:
        a = (x + 1) * y
        x.add_(1)
        return (a + x) * 2

    def outside(x: Tensor, y: Tensor) -> Tensor:
        e = (x - y) * 2
        return (e / e.sum()) + 1

    def small(x: Tensor, y: Tensor) -> Tensor:
        return x[0].exp() * 2 + y * x

    def layout(x: Tensor, y: Tensor) -> Tensor:
        return (x.transpose(0, 1) * 2 + 1) + y * 3

    assert groups_of(write, x, y) == [["add", "multiply"], ["add_1", "multiply_1"]]
    assert groups_of(outside, x, y) == [["subtract", "multiply"], ["divide", "add"]]
    assert [len(g) for g in groups_of(small, x, y)] == [2, 2]
    assert sorted(len(g) for g in groups_of(layout, x, y)) == [2, 2]


def test_long_graphs_become_several_groups() -> None:
    """S210: no loop is longer, and none has more operands, than a compiler and NumPy take."""

    def long(x: Tensor) -> Tensor:
        for _ in range(1000):
            x = x * 0.5 + 1
        return x

    def wide(*xs: Tensor) -> Tensor:
        return sum(xs[1:], xs[0] * 2)

    lengths = [len(g) for g in groups_of(long, polyop.ones(3))]
    assert sum(lengths) >= 1990 and max(lengths) <= GROUPS.LONGEST
    items = GROUPS.items_of(make_fx(wide)(*[polyop.ones(3) for _ in range(100)]).graph)
    groups = [item for item in items if isinstance(item, GROUPS.Group)]
    assert all(len(g.inputs) + len(g.outputs) <= GROUPS.MOST for g in groups) and len(groups) > 3


def test_the_walk_is_linear(monkeypatch: Any) -> None:
    """S210: each call is asked for its formula once, and looked at a bounded number of times."""
    looks: list[Any] = []
    first = GROUPS.Group.has_room

    def has_room(self: Any, others: Any, node: Any, formula: Any) -> bool:
        looks.append(len(self.members))
        return bool(first(self, others, node, formula))

    monkeypatch.setattr(GROUPS.Group, "has_room", has_room)

    def f(x: Tensor) -> Tensor:
        for _ in range(300):
            x = (x * 0.5 + 1).abs() - x.sum()
        return x

    assert groups_of(f, polyop.ones(3))
    assert len(looks) <= 1200 and max(looks) <= GROUPS.LONGEST
