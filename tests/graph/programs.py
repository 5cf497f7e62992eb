"""Small fake operators, and random programs of them, for the tests of graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from polyop.graph import Graph, Node
from polyop.schema.types import BaseType, ListType, OptionalType, UnionType

#: The type of an argument that takes what there is.
ANY = UnionType(
    (OptionalType(BaseType("Scalar")), ListType(BaseType("Scalar"), None), BaseType("Tensor"))
)


@dataclass(frozen=True)
class FakeArgument:
    """As much of a schema's argument as graphs read."""

    name: str
    kwarg_only: bool = False
    default: bool = False
    type: Any = ANY
    alias_info: Any = None

    def has_default_value(self) -> bool:
        return self.default


@dataclass(frozen=True)
class FakeSchema:
    """As much of a schema as graphs read."""

    name: str
    arguments: tuple[FakeArgument, ...]
    returns: tuple[FakeArgument, ...] = (FakeArgument(""),)
    is_mutable: bool = False
    is_view: bool = False

    def __str__(self) -> str:
        return f"{self.name}({', '.join(a.name for a in self.arguments)})"


class FakeOp:
    """An operator: a callable with a schema."""

    def __init__(self, name: str, fn: Any, arguments: str, **facts: Any) -> None:
        self._fn = fn
        self.is_impure = facts.pop("is_impure", False)
        parts = tuple(
            FakeArgument(a.strip("*?"), "*" in a, "?" in a) for a in arguments.split() if a
        )
        self._schema = FakeSchema(f"demo::{name}", parts, **facts)
        self.__name__ = f"{name}.default"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._fn(*args, **kwargs)

    def __str__(self) -> str:
        return self._schema.name.replace("::", ".") + ".default"


@dataclass
class World:
    """What impure operators act on."""

    draws: int = 0

    def draw(self, x: Any) -> Any:
        self.draws += 1
        return x + self.draws


WORLD = World()


def write(x: Any, y: Any) -> Any:
    """Write to the first argument."""
    x += np.sum(np.asarray(y)) % 7 + 1
    return x


ADD = FakeOp("add", lambda x, y: np.add(x, y) % 1009, "x y")
NEG = FakeOp("neg", lambda x: 1.0 - x, "x")
FMA = FakeOp("fma", lambda x, y, *, scale=1: (x * y + scale) % 1009, "x y *scale?")
CAT = FakeOp("cat", lambda xs, dim=0: np.sum(xs, axis=0) % 1009 + dim, "xs dim?")
FLIP = FakeOp("flip", lambda x: x[::-1], "x", is_view=True)
WRITE = FakeOp("write_", write, "x y", is_mutable=True, returns=(FakeArgument("", alias_info=1),))
DRAW = FakeOp("draw", WORLD.draw, "x", is_impure=True)
ONES = FakeOp("ones", lambda n: np.ones(n), "n")
SPLIT = FakeOp("split", lambda x: (x * 2 % 1009, x * 3 % 1009), "x")


def plain(x: Any, y: Any = 0) -> Any:
    """A function without a schema, whose result is its argument."""
    return x


def pick(pair: Any, index: int) -> Any:
    """Read one of several results."""
    return pair[index]


#: How each step of a program calls: from two values and a constant.
STEPS: list[Any] = [
    lambda call, a, b, c: call(ADD, (a, b)),
    lambda call, a, b, c: call(ADD, (a, c)),
    lambda call, a, b, c: call(NEG, (a,)),
    lambda call, a, b, c: call(FMA, (a, b), {"scale": c}),
    lambda call, a, b, c: call(FMA, (a,), {"y": b, "scale": c}),
    lambda call, a, b, c: call(CAT, ([a, b, a], c)),
    lambda call, a, b, c: call(FLIP, (a,)),
    lambda call, a, b, c: call(WRITE, (a, b)),
    lambda call, a, b, c: call(DRAW, (a,)),
    lambda call, a, b, c: call(ONES, (2,)),
    lambda call, a, b, c: call(plain, (a, c)),
    lambda call, a, b, c: call(pick, (call(SPLIT, (a,)), 1)),
]

CONSTANTS = (1, 1.0, True, 0.0, -0.0, 2)

step = st.tuples(
    st.integers(0, len(STEPS) - 1),
    st.integers(0, 50),
    st.integers(0, 50),
    st.sampled_from(CONSTANTS),
)
programs = st.tuples(st.lists(step, max_size=25), st.lists(st.integers(0, 50), max_size=4))


def evaluate(program: Any, call: Any, inputs: Any) -> Any:
    """Run a program with `call` in the place of calls."""
    steps, results = program
    values = list(inputs)
    for kind, a, b, constant in steps:
        values.append(
            STEPS[kind](call, values[-1 - a % len(values)], values[b % len(values)], constant)
        )
    return {"out": tuple(values[-1 - i % len(values)] for i in results), "last": [values[-1]]}


def build(program: Any) -> Graph:
    """Write a program as a graph."""
    graph = Graph()
    inputs = [graph.placeholder("x"), graph.placeholder("y")]
    graph.output(evaluate(program, graph.call_function, inputs))
    return graph


def directly(op: Any, args: Any, kwargs: Any = None) -> Any:
    """Call an operator now."""
    return op(*args, **(kwargs or {}))


def observe(run: Any) -> Any:
    """Run on fresh inputs: results, inputs left behind, who shares storage, draws."""
    WORLD.draws = 0
    x, y = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    result = run(x, y)
    arrays = [*result["out"], *result["last"], x, y]
    shared = [[np.shares_memory(a, b) for a in arrays] for b in arrays]
    return [a.tolist() for a in arrays], shared, WORLD.draws


def chain(length: int, fn: Any = ADD) -> tuple[Graph, Node]:
    """Make a long graph, each node reading the one before."""
    graph = Graph()
    node = x = graph.placeholder("x")
    for _ in range(length):
        node = graph.call_function(fn, (node, x))
    return graph, node
