"""Passes keep what a program does, and take time in proportion to it."""

from __future__ import annotations

import operator
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from tests.graph.programs import (
    ADD,
    DRAW,
    FLIP,
    NEG,
    ONES,
    WRITE,
    build,
    chain,
    directly,
    evaluate,
    observe,
    plain,
    programs,
)

from polyop.graph import (
    Graph,
    GraphModule,
    compile_program,
    eliminate_common_subexpressions,
    eliminate_dead_code,
    fold_constants,
)

PASSES: list[Any] = [
    eliminate_dead_code,
    eliminate_common_subexpressions,
    lambda graph: fold_constants(GraphModule({}, graph)),
]


def after(graph: Graph, change: Any) -> Any:
    """Apply a pass, and give the module with what the pass added."""
    module = GraphModule({}, graph)
    count = fold_constants(module) if change is fold_constants else change(graph)
    module.recompile()
    return module, count


@pytest.mark.parametrize(
    "change", [eliminate_dead_code, eliminate_common_subexpressions, fold_constants]
)
@settings(max_examples=300)
@given(program=programs)
def test_a_pass_keeps_the_program(change: Any, program: Any) -> None:
    """S210: results, writes, shared storage and draws are those of eager calls."""
    direct = observe(lambda *xs: evaluate(program, directly, xs))
    graph = build(program)
    size = len(graph.nodes)
    module, count = after(graph, change)
    graph.lint(module)
    reads = sum(n.op == "get_attr" for n in graph.nodes)
    assert len(graph.nodes) == size - count + reads
    assert observe(module) == direct
    assert observe(module) == direct


@given(programs)
def test_all_passes_in_turn_keep_the_program(program: Any) -> None:
    """S210: passes compose, and a second time there is nothing left to do."""
    module = GraphModule({}, build(program))
    everything = (eliminate_common_subexpressions, eliminate_dead_code)
    fold_constants(module)
    for change in everything:
        change(module.graph)
    assert [change(module.graph) for change in everything] == [0, 0]
    module.recompile()
    assert observe(module) == observe(lambda *xs: evaluate(program, directly, xs))


def test_dead_chains_go_and_effects_stay() -> None:
    """S210: a dead chain goes whole; writes, draws and the inputs stay."""
    graph = Graph()
    x = graph.placeholder("x")
    graph.placeholder("unused")
    graph.call_function(NEG, (graph.call_function(NEG, (x,)),))
    kept = graph.call_function(FLIP, (x,))
    graph.call_function(WRITE, (kept, 1))
    graph.call_function(DRAW, (x,))
    graph.call_function(operator.setitem, (x, 0, 1))
    graph.call_method("add_", (x, 1))
    graph.call_method("add", (x, 1))
    graph.output(x)
    assert eliminate_dead_code(graph) == 3
    assert [n.name for n in graph.nodes if n.op.startswith("call")] == [
        "flip",
        "write_",
        "draw",
        "setitem",
        "add_",
    ]


def test_purity_can_be_given() -> None:
    """The caller may say what must stay."""
    graph, _ = chain(3)
    assert eliminate_dead_code(graph, is_impure=lambda n: True) == 0
    assert eliminate_dead_code(graph) == 3


def test_equal_calls_are_made_once() -> None:
    """S210: equal calls merge, and what reads them merges in the same walk."""
    graph = Graph()
    x = graph.placeholder("x")
    twice = [graph.call_function(NEG, (graph.call_function(ADD, (x, [1, 2.0])),)) for _ in range(3)]
    graph.output(graph.call_function(ADD, (twice[0], twice[2])))
    assert eliminate_common_subexpressions(graph) == 4
    graph.lint()
    assert len(graph.nodes) == 5


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (1, 1.0, False),
        (1, True, False),
        (0.0, -0.0, False),
        (0j, -0j, False),
        (float("nan"), float("nan"), True),
        ([1], (1,), False),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, False),
        (slice(1, None), slice(1, None), True),
        (slice(1, None), slice(1, 2), False),
        ("ab", "a" + "b", True),
        (np.int64(1), np.int64(1), False),
    ],
    ids=repr,
)
def test_constants_are_the_same_only_if_nobody_can_tell(a: Any, b: Any, same: bool) -> None:
    """Equal numbers of two classes, zeros of two signs and unknown objects keep calls apart."""
    graph = Graph()
    x = graph.placeholder("x")
    calls = [graph.call_function(ADD, (x, c)) for c in (a, b)]
    graph.output(graph.call_function(ADD, tuple(calls)))
    assert eliminate_common_subexpressions(graph) == int(same)


def test_no_merge_across_a_write_or_a_draw() -> None:
    """S210: a read before a write is not a read after it, and every draw is made."""
    graph = Graph()
    x = graph.placeholder("x")
    first = graph.call_function(NEG, (x,))
    graph.call_function(WRITE, (x, 1))
    second = graph.call_function(NEG, (x,))
    draws = [graph.call_function(DRAW, (second,)) for _ in range(2)]
    graph.output(graph.call_function(ADD, (first, graph.call_function(ADD, tuple(draws)))))
    assert eliminate_common_subexpressions(graph) == 0


def test_no_merge_of_what_is_written_later() -> None:
    """Two fresh results stay two if one of them, or a view of it, is written to."""
    graph = Graph()
    x = graph.placeholder("x")
    one, two = graph.call_function(NEG, (x,)), graph.call_function(NEG, (x,))
    graph.call_function(WRITE, (graph.call_function(FLIP, (one,)), 1))
    graph.output(graph.call_function(ADD, (one, two)))
    assert eliminate_common_subexpressions(graph) == 0


def test_no_merge_of_two_results() -> None:
    """A caller who gets two arrays gets two."""
    graph = Graph()
    x = graph.placeholder("x")
    three, one, two = (graph.call_function(NEG, (x,)) for _ in range(3))
    graph.output([one, two, graph.call_function(ADD, (three, 1))])
    assert eliminate_common_subexpressions(graph) == 1


def test_writes_can_be_given() -> None:
    """The caller may say what writes."""
    graph = Graph()
    x = graph.placeholder("x")
    calls = [graph.call_function(plain, (x, 1)) for _ in range(2)]
    graph.output(graph.call_function(ADD, tuple(calls)))
    assert eliminate_common_subexpressions(graph.copy(), is_write=lambda n: n.target is plain) == 0
    assert eliminate_common_subexpressions(graph) == 1


def test_constants_are_computed_once() -> None:
    """S210: what depends on constants alone becomes an attribute, or a number in its place."""
    graph = Graph()
    x = graph.placeholder("x")
    two = graph.call_function(operator.add, (1, 1))
    ones = graph.call_function(ADD, (graph.call_function(ONES, (two,)), 4))
    graph.output((graph.call_function(ADD, (x, ones)), [two]))
    module = GraphModule({}, graph)
    assert fold_constants(module) == 3
    module.graph.lint(module)
    assert module.constant_0.tolist() == [5, 5]
    assert str(graph) == "\n".join(
        [
            "graph(x):",
            "    constant_0 = self.constant_0",
            "    add = demo.add(x, constant_0)",
            "    return (add, [2])",
        ]
    )
    result = module(np.array([1.0, 2.0]))
    assert result[0].tolist() == [6, 7]


def test_a_constant_that_could_be_changed_is_made_anew() -> None:
    """A result, and what is written to, is never a shared constant."""
    graph = Graph()
    made = [graph.call_function(ONES, (2,)) for _ in range(2)]
    graph.call_function(WRITE, (graph.call_function(FLIP, (made[0],)), 1))
    graph.output((graph.call_function(NEG, (made[0],)), made[1]))
    assert fold_constants(GraphModule({}, graph)) == 0


def test_a_failing_constant_fails_at_the_run() -> None:
    """A call that raises is left for the run."""
    graph = Graph()
    graph.output(graph.call_function(operator.truediv, (1, 0)))
    module = GraphModule({}, graph)
    assert fold_constants(module) == 0
    with pytest.raises(ZeroDivisionError):
        module()


def test_attributes_are_constants_only_when_frozen() -> None:
    """An attribute may be replaced between runs, unless the caller says it is not."""
    graph = Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(ADD, (x, graph.call_function(NEG, (graph.get_attr("w"),)))))
    module = GraphModule({"w": np.ones(2)}, graph)
    assert fold_constants(module) == 0
    assert fold_constants(module, is_frozen=lambda name: name == "w") == 1
    module.w = np.zeros(2)
    assert module(np.ones(2)).tolist() == [1, 1]


def test_a_frozen_attribute_that_is_written_is_no_constant() -> None:
    """A graph that writes to an attribute reads it anew everywhere."""
    graph = Graph()
    graph.call_function(WRITE, (graph.get_attr("w"), 0))
    graph.output(graph.call_function(ADD, (graph.call_function(NEG, (graph.get_attr("w"),)), 0)))
    module = GraphModule({"w": np.ones(2)}, graph)
    assert fold_constants(module, is_frozen=lambda _: True) == 0
    assert module().tolist() == [1008, 1008]


# -- cost ---------------------------------------------------------------------


def calls_during(fn: Any) -> int:
    """Count the calls that are made while `fn` runs."""
    count = 0

    def note(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        fn()
    finally:
        sys.setprofile(before)
    return count


def wide(size: int) -> Graph:
    """A graph whose many equal calls, constants and dead ends are read by one node."""
    graph = Graph()
    x = graph.placeholder("x")
    made: list[Any] = []
    for i in range(size // 5):
        made += [graph.call_function(plain, (graph.call_function(NEG, (x,)), i)) for _ in range(2)]
        made.append(graph.call_function(operator.add, (1, i)))
    graph.output(graph.call_function(ADD, (made, 0)))
    return graph


def long(size: int) -> Graph:
    graph, node = chain(size, plain)
    graph.call_function(ADD, (node, 1))
    graph.output(node)
    return graph


@pytest.mark.parametrize("shape", [wide, long])
@pytest.mark.parametrize(
    "work",
    [
        *PASSES,
        compile_program,
        Graph.copy,
        Graph.lint,
        str,
        lambda g: GraphModule({}, g).code,
        lambda g: compile_program(g)(1),
    ],
    ids=["dead", "common", "fold", "compile", "copy", "lint", "text", "code", "run"],
)
def test_cost_is_linear_in_nodes(shape: Any, work: Any) -> None:
    """S210: ten times the nodes take ten times the steps, in every walk over a graph."""
    small, large = shape(1_000), shape(10_000)
    few, many = (calls_during(lambda g=g: work(g)) for g in (small, large))
    assert many < 12 * few
