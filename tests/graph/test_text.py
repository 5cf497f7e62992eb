"""Text to read and code that runs."""

from __future__ import annotations

import math
import operator
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from tests.graph.programs import ADD, FMA, NEG, FakeOp, build, observe, programs

from polyop.errors import GraphError
from polyop.graph import Graph, GraphModule

Pair = namedtuple("Pair", "first second")


class Meta:
    """A frozen description of an array."""

    def __init__(self, dtype: str, *shape: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)


def run_code(module: GraphModule, *inputs: Any) -> Any:
    scope = module.namespace
    exec(module.code, scope)
    return scope["forward"](module, *inputs)


def test_the_text_of_a_graph_is_fixed() -> None:
    """S208: the text is readable, stable, and has shapes and dtypes."""
    graph = Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    x.val = Meta("float32", 3, "s0")
    product = graph.call_function(ADD, (x, y))
    product.val = Meta("int64", 3)
    item = graph.call_function(operator.getitem, (product, (slice(None, y, 2), ...)))
    item.val = (Meta("bool"), [Meta("complex64")])
    weight = graph.get_attr("block.weight")
    called = graph.call_method("dot", (item, weight), {"out": None, "not": 1})
    graph.output({"a": [called, 1.5], "b": graph.call_module("block.0", (x,))})
    assert str(graph) == "\n".join(
        [
            "graph(x: f32[3, s0], y):",
            "    add: i64[3] = demo.add(x, y)",
            "    getitem: (bool[], (c64[])) = operator.getitem(add, (slice(None, y, 2), Ellipsis))",
            "    block_weight = self.block.weight",
            "    dot = getitem.dot(block_weight, out=None, **{'not': 1})",
            "    block_0 = getattr(self.block, '0')(x)",
            "    return {'a': [dot, 1.5], 'b': block_0}",
        ]
    )
    assert str(graph) == str(graph.copy())


@given(programs)
def test_printed_code_equals_the_call(program: Any) -> None:
    """S208: a GraphModule equals its printed code."""
    module = GraphModule({}, build(program))
    assert observe(lambda *xs: run_code(module, *xs)) == observe(module)


def test_code_says_what_a_reader_expects() -> None:
    """The code is a Python function with shapes as comments."""
    graph = Graph()
    x = graph.placeholder("x")
    x.val = Meta("uint8", 2)
    total = graph.call_function(FMA, (x, x), {"scale": 2})
    total.val = Meta("float16")
    graph.output((total,))
    module = GraphModule({}, graph)
    assert module.code == "\n".join(
        [
            "def forward(self, x):",
            "    # x: u8[2]",
            "    fma = demo.fma.default(x, x, scale=2)  # f16[]",
            "    return (fma,)",
            "",
        ]
    )


@pytest.mark.parametrize(
    "value",
    [
        math.inf,
        -math.inf,
        math.nan,
        -0.0,
        1 - 0j,
        complex(-0.0, 1),
        np.dtype("float32"),
        "a'b",
        b"x",
    ],
    ids=repr,
)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v, {"k": (v,)}], lambda v: Pair(v, 1)])
def test_constants_survive_the_code(value: Any, wrap: Any) -> None:
    """Every constant in the printed code is the one in the graph."""
    graph = Graph()
    graph.output(graph.call_function(lambda v: v, (wrap(value),)))
    module = GraphModule({}, graph)
    assert repr(run_code(module)) == repr(module()) == repr(wrap(value))
    assert type(run_code(module)) is type(wrap(value))


def test_names_in_the_code_do_not_hide_each_other() -> None:
    """An input named like an operator's namespace or a builtin changes nothing."""
    graph = Graph()
    inputs = [graph.placeholder(n) for n in ("demo", "slice", "operator", "pick", "forward")]
    total = graph.call_function(ADD, (inputs[0], inputs[1]))
    part = graph.call_function(operator.getitem, ([total, 5], slice(0, inputs[2])))

    def pick(xs: Any) -> Any:
        return xs[0]

    graph.output((graph.call_function(pick, (part,)), inputs[3], inputs[4]))
    module = GraphModule({}, graph)
    assert run_code(module, 1, 2, 1, 3, 4) == module(1, 2, 1, 3, 4) == (3, 3, 4)


def test_two_callables_of_one_name_stay_two() -> None:
    """Different targets never share a name in the code."""

    def make(k: int) -> Any:
        return lambda v: v * 10 + k

    twin = FakeOp("add", lambda x, y: x - y, "x y")
    graph = Graph()
    node: Any = graph.placeholder("x")
    for fn in (make(1), make(2), make(3)):
        node = graph.call_function(fn, (node,))
    node = graph.call_function(twin, (graph.call_function(ADD, (node, 1)), 2))
    graph.output(node)
    module = GraphModule({}, graph)
    assert run_code(module, 0) == module(0) == 122


# -- modules ------------------------------------------------------------------


class Root:
    weight = 3

    class block:
        bias = 4

        @staticmethod
        def act(v: Any) -> Any:
            return -v


def with_attributes() -> Graph:
    graph = Graph()
    x = graph.placeholder("x")
    total = graph.call_function(
        operator.add, (graph.get_attr("weight"), graph.get_attr("block.bias"))
    )
    total = graph.call_function(operator.mul, (total, x))
    graph.output(graph.call_method("bit_length", (graph.call_module("block.act", (total,)),)))
    return graph


@pytest.mark.parametrize("root", [Root, {"weight": 3, "block.bias": 4, "block.act": operator.neg}])
def test_attributes_come_from_the_root(root: Any) -> None:
    """S208: attributes and submodules are copied from an object or a mapping."""
    module = GraphModule(root, with_attributes())
    module.graph.lint(module)
    assert module(5) == run_code(module, 5) == (-35).bit_length()
    assert (module.weight, module.block.bias) == (3, 4)
    assert GraphModule(module, module.graph.copy())(5) == module(5)


def test_attributes_are_read_at_each_call() -> None:
    """A module whose attribute is replaced computes with the new one, as its code does."""
    module = GraphModule(Root, with_attributes())
    module(5)
    module.weight = 100
    assert module(5) == run_code(module, 5) == (104 * 5).bit_length()


def test_a_missing_attribute_is_refused() -> None:
    """A root without what the graph reads, or a taken name, is a GraphError."""
    graph = Graph()
    graph.output(graph.get_attr("block.missing"))
    with pytest.raises(GraphError, match=r"reads 'block.missing'"):
        GraphModule(Root, graph)
    graph = Graph()
    graph.output(graph.get_attr("code"))
    with pytest.raises(GraphError, match="'code' cannot be an attribute"):
        GraphModule({"code": 1}, graph)


def test_recompile_takes_up_changes() -> None:
    """After `recompile` a module runs and prints the changed graph."""
    graph = Graph()
    x = graph.placeholder("x")
    node = graph.call_function(NEG, (x,))
    graph.output(node)
    module = GraphModule({}, graph)
    assert module(3) == -2
    node.target, node.args = ADD, (x, x)
    module.recompile()
    assert module(3) == run_code(module, 3) == 6


def test_print_readable_shows_inner_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    """S208: the printed class has the graphs that it holds."""
    inner = Graph()
    inner.output(inner.call_function(NEG, (inner.placeholder("v"),)))
    graph = Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_module("body", (x,)))
    module = GraphModule({"body": GraphModule({}, inner)}, graph, "Outer")
    text = module.print_readable()
    assert capsys.readouterr().out == text + "\n"
    assert module.print_readable(print_output=False) == str(module) == text
    assert text == "\n".join(
        [
            "class Outer:",
            "    def forward(self, x):",
            "        body = self.body(x)",
            "        return body",
            "",
            "    class body:",
            "        def forward(self, v):",
            "            neg = demo.neg.default(v)",
            "            return neg",
        ]
    )
    assert capsys.readouterr().out == ""


def test_an_empty_graph_is_a_program() -> None:
    """A graph without output gives None, called or printed."""
    module = GraphModule({}, Graph())
    assert module() is None
    assert run_code(module) is None
