"""The verifier finds each way in which a graph can be wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from tests.graph.programs import ADD, FMA, NEG, build, programs

import polyop
from polyop.errors import GraphError
from polyop.graph import Graph, Node


def base() -> tuple[Graph, Node, Node]:
    graph = Graph()
    x = graph.placeholder("x")
    return graph, x, graph.call_function(NEG, (x,))


@given(programs)
def test_what_the_graph_builds_is_well_formed(program: Any) -> None:
    """S208: a graph made with its own methods passes."""
    build(program).lint()


def wrong_name(graph: Graph, x: Node, neg: Node) -> None:
    neg.name_ = x.name


def wrong_order(graph: Graph, x: Node, neg: Node) -> None:
    with graph.inserting_before(x):
        graph.call_function(NEG, (neg,))


def wrong_itself(graph: Graph, x: Node, neg: Node) -> None:
    neg.set_args((neg,))


def wrong_user_missing(graph: Graph, x: Node, neg: Node) -> None:
    x.users.clear()


def wrong_user_extra(graph: Graph, x: Node, neg: Node) -> None:
    neg.users[x] = None


def wrong_erased(graph: Graph, x: Node, neg: Node) -> None:
    other = graph.call_function(NEG, (x,))
    _ = other.name
    graph.erase_node(other)
    neg.args = (other,)


def wrong_target(graph: Graph, x: Node, neg: Node) -> None:
    neg.target = 3


def wrong_method(graph: Graph, x: Node, neg: Node) -> None:
    neg.op = "call_method"


def wrong_kind(graph: Graph, x: Node, neg: Node) -> None:
    neg.op = "call"


def wrong_link(graph: Graph, x: Node, neg: Node) -> None:
    neg.prev = neg


def wrong_input(graph: Graph, x: Node, neg: Node) -> None:
    x.args = (1,)


def two_outputs(graph: Graph, x: Node, neg: Node) -> None:
    graph.output(x)


def early_output(graph: Graph, x: Node, neg: Node) -> None:
    with graph.inserting_after(x):
        graph.output(x)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_name, r"node x: its name is also that of: x\n"),
        (wrong_order, r"node neg_1: reads neg before it is defined\n.*neg_1 = demo.neg\(neg\)"),
        (wrong_itself, "reads neg before it is defined"),
        (wrong_user_missing, "node x: its users do not match who reads it: neg"),
        (wrong_user_extra, "node neg: its users do not match who reads it: x"),
        (wrong_erased, "node neg: reads neg_1, which is not in this graph"),
        (wrong_target, "its target 3 is not callable"),
        (wrong_method, "is not a name"),
        (wrong_kind, "'call' is no kind of node"),
        (wrong_link, "node neg: is linked wrongly"),
        (wrong_input, "a placeholder takes no arguments"),
        (two_outputs, "output_1: is a second output"),
    ],
)
def test_each_mistake_is_found(spoil: Any, message: str) -> None:
    """S208: what is wrong is said with the node and its line."""
    graph, x, neg = base()
    _ = x.name, neg.name
    spoil(graph, x, neg)
    graph.output(x)
    with pytest.raises(GraphError, match=f"(?s){message}"):
        graph.lint()


def test_the_output_is_one_and_last() -> None:
    """S208: a graph ends with its only output."""
    graph, x, neg = base()
    with pytest.raises(GraphError, match="has no output"):
        graph.lint()
    early_output(graph, x, neg)
    with pytest.raises(GraphError, match=r"not last; behind it stands: neg = demo.neg\(x\)"):
        graph.lint()


@pytest.mark.parametrize(
    ("op", "args", "kwargs", "message"),
    [
        (ADD, (1, 2, 3), {}, r"takes 2 positional arguments, not 3: demo::add\(x, y\)"),
        (ADD, (1,), {}, r"misses y: demo::add"),
        (ADD, (), {}, r"misses x, y: demo::add"),
        (ADD, (1, 2), {"x": 1}, "gets the argument 'x' twice"),
        (FMA, (1, 2), {"scal": 1}, "has no argument 'scal'; did you mean 'scale'"),
        (FMA, (1, 2, 3), {}, "takes 2 positional"),
        (FMA, (1, 2), {"scale": 1}, None),
        (FMA, (1,), {"y": 1}, None),
        (print, (1, 2, 3), {"end": ""}, None),
    ],
)
def test_arguments_are_counted(op: Any, args: Any, kwargs: Any, message: str | None) -> None:
    """S208: the arguments of an operator fit its schema; other callables may do as they like."""
    graph = Graph()
    node = graph.call_function(op, args, kwargs)
    node.source = "model.py:7"
    graph.output(node)
    if message is None:
        graph.lint()
        return
    with pytest.raises(GraphError, match=message) as caught:
        graph.lint()
    assert caught.value.source == "model.py:7"
    assert caught.value.op == str(op).removesuffix(".default")


def test_attributes_exist_on_the_module() -> None:
    """S208: with a module, what the graph asks it for must be there."""

    class Module:
        def __init__(self) -> None:
            self.weight = 1

    graph = Graph()
    graph.output(graph.get_attr("wieght"))
    graph.lint()
    with pytest.raises(GraphError, match="no attribute 'wieght'; did you mean 'weight'"):
        graph.lint(Module())
    graph = Graph()
    graph.output(graph.call_module("weight"))
    with pytest.raises(GraphError, match="'weight' is not callable"):
        graph.lint(Module())


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, None),
        ((2,), {"sizes": [1, 2], "axis": None}, None),
        ((2,), {"sizes": 3, "axis": 1}, None),
        (("q",), {}, "gets 'q' for int n"),
        ((), {"n": 2.5}, r"gets 2\.5 for int n"),
        ((), {"sizes": [1, "s"]}, r"gets \[1, 's'\] for SymInt\[2\]"),
        ((), {"axis": "s"}, "gets 's' for int\\? axis"),
    ],
)
def test_arguments_have_the_types_of_the_schema(
    args: Any, kwargs: Any, message: str | None
) -> None:
    """S208: what a graph gives as it is fits the schema."""
    schema = "(Tensor x, int n=2, *, SymInt[2] sizes=1, int? axis=None) -> Tensor"
    polyop.library.define("lint_types::f", schema)
    for first, wrong in ((True, message), (False, "gets 's' for Tensor x")):
        graph = Graph()
        x = graph.placeholder("x")
        node = graph.call_function(
            polyop.ops.lint_types.f.default, (x if first else "s", *args), kwargs
        )
        graph.output(node)
        if wrong is None:
            graph.lint()
            continue
        with pytest.raises(GraphError, match=wrong):
            graph.lint()


def test_lists_with_nodes_are_looked_into() -> None:
    """S208: beside a node a wrong item is seen all the same."""
    graph = Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(polyop.ops.core.concat.default, ([x, "s"],)))
    with pytest.raises(GraphError, match="for Tensor"):
        graph.lint()
