"""The register program."""

from __future__ import annotations

import traceback
import weakref
from typing import Any

import pytest
from hypothesis import given
from tests.graph.programs import ADD, NEG, build, chain, directly, evaluate, observe, programs

from polyop.errors import GraphError, UsageTypeError
from polyop.graph import Graph, GraphModule, compile_program
from polyop.graph.runner import Builder


@given(programs)
def test_a_run_equals_direct_calls(program: Any) -> None:
    """S208: running a graph gives what its calls give, writes and draws included."""
    run = compile_program(build(program))
    direct = observe(lambda *xs: evaluate(program, directly, xs))
    assert observe(run) == direct
    assert observe(run) == direct  # a second run meets no leftovers


def test_calls_of_every_form_run() -> None:
    """None to five arguments, keywords, nested nodes, methods: each form is called right."""
    graph = Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")

    def seen(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    calls = [
        graph.call_function(seen),
        graph.call_function(seen, (), {"k": 1}),
        graph.call_function(seen, (x,), {"k": (1, 2)}),
        graph.call_function(seen, (x, y, 3, x, None)),
        graph.call_function(seen, ([x, y], (y,), {"a": x}, slice(x, 2)), {"k": [y]}),
        graph.call_method("upper", ("abc",)),
        graph.call_method("format", ("{} {k}", x), {"k": y}),
    ]
    graph.output(calls)
    assert compile_program(graph)(8, 9) == [
        ((), {}),
        ((), {"k": 1}),
        ((8,), {"k": (1, 2)}),
        ((8, 9, 3, 8, None), {}),
        (([8, 9], (9,), {"a": 8}, slice(8, 2)), {"k": [9]}),
        "ABC",
        "8 9",
    ]


def test_constants_are_told_apart() -> None:
    """1, 1.0, True, 0.0 and -0.0 reach a call as they are."""
    graph = Graph()
    values = (1, 1.0, True, 0.0, -0.0, 1j)
    graph.output([graph.call_function(repr, (v,)) for v in values])
    assert compile_program(graph)() == [repr(v) for v in values]


def test_a_list_is_new_at_each_run() -> None:
    """A callable that changes a list in the program does not change the program."""
    graph = Graph()

    def grow(items: Any, more: Any) -> Any:
        items.append(more)
        return items

    grown = graph.call_function(grow, ([], 1))
    graph.output([grown, []])
    run = compile_program(graph)
    first = run()
    first[1].append(5)
    assert run() == [[1], []]


def test_the_number_of_inputs_is_checked() -> None:
    """A wrong number of inputs is our error, before anything runs."""
    graph, node = chain(1)
    graph.output(node)
    with pytest.raises(UsageTypeError, match=r"(?s)wrong number.*1 inputs.*2 inputs"):
        compile_program(graph)(1, 2)


def test_an_error_names_its_node() -> None:
    """An exception in a run says which node raised it, and keeps its own type."""
    graph = Graph()
    x = graph.placeholder("x")
    node = graph.call_function(NEG, (x,))
    bad = graph.call_function(lambda v: 1 / v, (node,))
    bad.source = "model.py:12"
    graph.output(graph.call_function(NEG, (bad,)))
    module = GraphModule({}, graph)
    assert module(3) == 1.5
    with pytest.raises(ZeroDivisionError) as caught:
        module(1)
    assert caught.value.__notes__ == [
        "while running node _lambda_: _lambda_ = <lambda>(neg), from model.py:12"
    ]


@given(programs)
def test_the_failing_node_is_the_right_one(program: Any) -> None:
    """Whichever call fails, the note has its name."""
    graph = build(program)
    for node in [n for n in graph.nodes if n.op == "call_function"]:
        target, node.target = node.target, fail
        with pytest.raises(LookupError) as caught:
            observe(compile_program(graph))
        assert caught.value.__notes__[0].startswith(f"while running node {node.name}: ")
        node.target = target


def fail(*args: Any, **kwargs: Any) -> Any:
    raise LookupError


def test_attributes_need_a_module() -> None:
    """A graph that reads attributes is not run without them."""
    graph = Graph()
    graph.output(graph.get_attr("weight"))
    with pytest.raises(GraphError, match="there is no module"):
        compile_program(graph)
    assert compile_program(graph, get_attr={"weight": 7}.__getitem__)() == 7


def test_what_is_called_can_be_chosen() -> None:
    """`resolve` gives what each node calls."""
    graph, node = chain(3)
    graph.output(node)
    assert compile_program(graph, resolve=lambda n: lambda a, b: a * b)(2) == 16


class Value:
    """Something whose end can be seen."""


def test_values_end_with_their_last_reader() -> None:
    """Nothing lives on after its last reader, whether its register is used again or not."""
    made: list[weakref.ref[Value]] = []
    alive: list[int] = []

    def make(*args: Any, **kwargs: Any) -> Value:
        alive.append(sum(ref() is not None for ref in made))
        value = Value()
        made.append(weakref.ref(value))
        return value

    graph = Graph()
    leaves = [graph.call_function(make) for _ in range(4)]
    left, right = (
        graph.call_function(make, tuple(leaves[:2])),
        graph.call_function(make, (leaves[2:],)),
    )
    unread = graph.call_function(make, (left,))
    both = graph.call_function(make, (left, right, left))
    one = graph.call_function(make, (both,))
    graph.output(graph.call_function(make, (one,)))
    assert not unread.users
    result = compile_program(graph)()
    assert alive == [0, 1, 2, 3, 4, 3, 2, 2, 1, 1]
    assert [ref() for ref in made if ref() is not None] == [result]


def test_a_long_chain_needs_few_registers() -> None:
    """S210: registers are used again; their number follows what lives at once."""
    graph, node = chain(10_000)
    graph.output(node)
    builder = Builder(None, None)
    builder.plan(graph.nodes)
    for each in graph.nodes:
        builder.add(each)
    assert builder.size <= 4
    assert len(builder.program) == 10_001  # and `x` is cleared
    assert compile_program(graph)(1.0) == 10_001 % 1009


def test_a_program_can_run_inside_itself() -> None:
    """Runs do not share registers."""
    graph = Graph()
    x = graph.placeholder("x")
    below = graph.call_function(lambda v: module(v - 1) if v else 0, (x,))
    graph.output(graph.call_function(ADD, (below, x)))
    module = GraphModule({}, graph)
    assert module(10) == 55


def test_an_error_of_an_inner_program_names_both_nodes() -> None:
    """Notes go from the innermost node outwards."""
    inner = Graph()
    inner.output(inner.call_function(fail, (inner.placeholder("v"),)))
    graph = Graph()
    graph.output(graph.call_module("body", (graph.placeholder("x"),)))
    with pytest.raises(LookupError) as caught:
        GraphModule({"body": GraphModule({}, inner)}, graph)(1)
    text = "".join(traceback.format_exception(caught.value))
    assert text.index("while running node fail") < text.index("while running node body")
