"""The linked list, names, users and copies."""

from __future__ import annotations

import gc
import operator
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.graph.programs import ADD, NEG, build, chain, observe, programs

from polyop.errors import GraphError
from polyop.graph import Graph, Node, compile_program


def small() -> tuple[Graph, Node, Node, Node]:
    graph = Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    total = graph.call_function(ADD, (x, y))
    graph.output(total)
    return graph, x, y, total


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


def test_nodes_stand_in_the_order_of_their_making() -> None:
    """S208: a graph is its nodes in order, forwards and backwards."""
    graph, *_ = small()
    assert names(graph) == ["x", "y", "add", "output"]
    assert [n.name for n in reversed(graph.nodes)] == ["output", "add", "y", "x"]
    assert len(graph.nodes) == 4


def test_a_node_made_by_hand_is_like_any_other() -> None:
    """A tracer may append with bare stores, leaving `next`, `name_` and `source` empty."""
    graph = Graph()
    x = graph.placeholder("x")
    n = Node()
    n.op, n.target, n.args, n.kwargs, n.val, n.users = "call_function", NEG, (x,), {}, None, {}
    n.graph, n.prev = graph, graph.last
    graph.last.next = n
    graph.last = n
    x.users[n] = None
    graph.output(n)
    graph.lint()
    assert compile_program(graph)(3.0) == -2.0
    assert str(graph) == "graph(x):\n    neg = demo.neg(x)\n    return neg"


def test_names_come_from_operators_and_arguments() -> None:
    """S208: names are unique, follow the operator or argument, and never change."""
    graph = Graph()
    x, again = graph.placeholder("x"), graph.placeholder("x")
    words = graph.placeholder("class"), graph.placeholder("self"), graph.placeholder("1a b")
    calls = [graph.call_function(ADD, (x, again)) for _ in range(3)]
    taken = graph.placeholder("add_1")
    assert [calls[1].name, calls[0].name, calls[2].name] == ["add", "add_1", "add_2"]
    assert taken.name == "add_1_1"
    assert [x.name, again.name, *(w.name for w in words)] == [
        "x",
        "x_1",
        "class_",
        "self_",
        "_1a_b",
    ]
    assert graph.call_function(operator.getitem, (x, 0)).name == "getitem"
    assert graph.call_function(lambda v: v, (x,)).name == "_lambda_"
    assert graph.call_method("sum", (x,)).name == "sum"
    assert graph.get_attr("block.weight").name == "block_weight"


def test_a_name_can_be_chosen() -> None:
    """A name given at the making is kept, and made unique."""
    graph = Graph()
    first = graph.create_node("placeholder", "x", name="data")
    second = graph.create_node("placeholder", "x", name="data")
    assert (first.name, second.name) == ("data", "data_1")


def test_users_follow_the_arguments() -> None:
    """A node's users are those that read it, in any nesting."""
    graph, x, y, total = small()
    nested = graph.call_function(print, ({"a": [x, slice(y, None)]}, (total,)), {"k": x})
    assert nested.all_input_nodes == [x, y, total]
    assert list(x.users) == [total, nested]
    nested.set_args((total,), {})
    assert list(x.users) == [total]
    nested.replace_input_with(total, y)
    assert nested.args == (y,)
    assert nested not in total.users


def test_uses_are_replaced_everywhere_but_in_the_replacement() -> None:
    """`replace_all_uses_with` lets a wrapper read what it wraps."""
    graph, x, y, total = small()
    with graph.inserting_after(x):
        wrapped = graph.call_function(NEG, (x,))
    assert x.replace_all_uses_with(wrapped) == [total]
    assert total.args == (wrapped, y)
    assert wrapped.args == (x,)
    graph.lint()


def test_nodes_are_inserted_where_asked() -> None:
    """`inserting_before` and `inserting_after` hold for their block, and nest."""
    graph, x, y, total = small()
    with graph.inserting_before(total):
        graph.call_function(NEG, (x,))
        with graph.inserting_after(x):
            graph.call_method("a", (x,))
            graph.call_method("b", (x,))
        graph.call_function(NEG, (y,))
    assert names(graph) == ["x", "a", "b", "y", "neg", "neg_1", "add", "output"]
    graph.lint()


def test_inserting_after_the_last_node_appends() -> None:
    """The end of the list is a place like any other."""
    graph = Graph()
    x = graph.placeholder("x")
    with graph.inserting_after(x):
        first, second = graph.call_method("a", (x,)), graph.call_method("b", (x,))
    assert list(graph.nodes) == [x, first, second]
    assert graph.last is second


def test_the_place_survives_the_erasing_of_its_node() -> None:
    """Erasing the node at the insertion point moves the point behind it."""
    graph, x, _, total = small()
    end = graph.last
    spare = graph.call_function(NEG, (x,))
    graph.erase_node(spare)
    with graph.inserting_before(end):
        graph.erase_node(end)
        graph.output(total)
    assert names(graph) == ["x", "y", "add", "output"]
    graph.lint()


def test_a_node_that_is_read_is_not_erased() -> None:
    """S208: erasing a node that has users is refused, and changes nothing."""
    graph, x, *_ = small()
    before = str(graph)
    with pytest.raises(GraphError, match=r"node x cannot be erased: add read it"):
        graph.erase_node(x)
    assert str(graph) == before


def test_nodes_of_two_graphs_do_not_mix() -> None:
    """An argument from another graph is refused, and changes nothing."""
    graph, x, *_ = small()
    other = Graph()
    with pytest.raises(GraphError, match="node of another graph: x"):
        other.call_function(NEG, (x,))
    with pytest.raises(GraphError, match="not in this graph"):
        other.erase_node(x)
    assert len(other.nodes) == 0
    assert len(x.users) == 1


def test_wrong_kinds_and_targets_are_refused() -> None:
    """A node is of one of six kinds, and calls what can be called."""
    with pytest.raises(GraphError, match="did you mean 'call_function'"):
        Graph().create_node("call_functions", print)
    with pytest.raises(GraphError, match="not callable"):
        Graph().call_function("print")  # type: ignore[arg-type]


@given(st.sets(st.integers(0, 19)), st.booleans())
def test_nodes_may_be_erased_while_iterating(gone: set[int], backwards: bool) -> None:
    """An iteration meets every node once, though those it met are erased."""
    graph = Graph()
    made = [graph.call_function(ADD, (i, i)) for i in range(20)]
    met = []
    for node in reversed(graph.nodes) if backwards else graph.nodes:
        met.append(node)
        if node.args[0] in gone:
            graph.erase_node(node)
    assert met == (made[::-1] if backwards else made)
    assert [n.args[0] for n in graph.nodes] == [i for i in range(20) if i not in gone]
    assert list(reversed(graph.nodes)) == list(graph.nodes)[::-1]


def test_nodes_added_while_iterating_are_met() -> None:
    """An iteration sees what is inserted in front of it."""
    graph = Graph()
    graph.placeholder("x")
    met = []
    for node in graph.nodes:
        met.append(node.name)
        if len(met) < 3:
            graph.call_method("m", (node,))
    assert met == ["x", "m", "m_1"]


@given(programs)
def test_a_copy_is_the_same_program(program: object) -> None:
    """A copy has the same text and results, and shares no node."""
    graph = build(program)
    text = str(graph)
    copies: dict[Node, Node] = {}
    copied = graph.copy(copies)
    copied.lint()
    assert str(copied) == text
    assert observe(compile_program(copied)) == observe(compile_program(graph))
    assert not set(graph.nodes) & set(copied.nodes)
    assert [copies[n] for n in graph.nodes] == list(copied.nodes)


def test_a_graph_is_inlined_in_another() -> None:
    """`inline` puts another graph's nodes here, with values for its inputs."""
    inner, *_ = small()
    graph = Graph()
    x = graph.placeholder("x")
    graph.output(graph.inline(inner, x, graph.inline(inner, x, 2)))
    graph.lint()
    assert compile_program(graph)(10) == 22
    with pytest.raises(ValueError, match="zip"):
        graph.inline(inner, x)


def test_a_dropped_graph_is_freed() -> None:
    """A long graph is freed whole, without deep recursion (S210)."""
    graph, node = chain(100_000)
    watch = weakref.ref(node)
    del graph, node
    gc.collect()
    assert watch() is None
