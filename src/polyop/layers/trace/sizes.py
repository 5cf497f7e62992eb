"""Symbolic sizes in graphs: where a size comes from, and what is computed from it.

A size among the arguments of a call is written into the graph as Python would
compute it: `sym_size(x, 0)` of a tensor that has it, and arithmetic.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from polyop.errors import GraphError, UsageError
from polyop.graph import Graph, Node
from polyop.graph.node import CALL_FUNCTION, GET_ATTR, PLACEHOLDER
from polyop.symbolic import (
    FloatExpr,
    ShapeEnv,
    SymBool,
    SymFloat,
    SymInt,
    check,
    sym_max,
    sym_min,
)
from polyop.symbolic.condition import rebuild_part
from polyop.symbolic.guards import Guard
from polyop.tensor.meta import Meta


def sym_size(x: Any, axis: int) -> Any:
    """Give the size of one axis of a tensor."""
    return x.shape[axis]


def assert_holds(condition: Any, message: str) -> None:
    """Stop a program whose sizes are not what its capture took them to be (S153).

    Raises:
        UsageError: the condition does not hold.
    """
    if isinstance(condition, SymBool):  # the program runs on fakes, and this is one of their facts
        check(condition, message)
    elif not condition:
        raise UsageError(f"a size is not in its range: {message}", seen=condition)


#: Passes keep it, though nobody reads what it gives.
assert_holds.is_impure = True  # type: ignore[attr-defined]


def both(a: Any, b: Any) -> Any:
    """Tell whether two conditions hold."""
    return a and b


def either(a: Any, b: Any) -> Any:
    """Tell whether one of two conditions holds."""
    return a or b


#: What each operation of an expression or condition is in a graph.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "mul": operator.mul, "floordiv": operator.floordiv,
    "mod": operator.mod, "pow": operator.pow, "truediv": operator.truediv,
    "max": sym_max, "min": sym_min,
    "eq": operator.eq, "ne": operator.ne, "ge": operator.ge, "gt": operator.gt,
    "le": operator.le, "lt": operator.lt, "and": both, "or": either, "not": operator.not_,
}  # fmt: skip


class Sizes:
    """The nodes of symbols and of expressions over them, in one graph."""

    __slots__ = ("_expressions", "_scanned", "_symbols", "graph")

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._symbols: dict[str, Node | tuple[Node, int]] = {}
        self._expressions: dict[Any, Any] = {}
        self._scanned = graph.root

    def node(self, value: SymInt | SymFloat | SymBool) -> Any:
        """Give the node of a symbolic number or condition; a constant if it is known by now."""
        known = self._expressions.get(value)
        if known is None:
            part = value.condition if isinstance(value, SymBool) else value.expr
            known = self._expressions[value] = self.compute(part)
            if isinstance(known, Node) and known.val is None:
                known.val = value
        return known

    def compute(self, part: Any) -> Any:
        """Add the nodes that compute an expression or a condition."""
        if isinstance(part, FloatExpr):
            return rebuild_part(part, self._leaf, _same, self._apply)
        return part.rebuild(self._leaf, _same, self._apply)

    def _apply(self, op: str, *operands: Any) -> Any:
        fn = FUNCTIONS[op]
        if not any(isinstance(x, Node) for x in operands):
            return fn(*operands)
        return self.graph.create_node(CALL_FUNCTION, fn, operands)

    def _leaf(self, name: str) -> Node:
        place = self.place(name)
        if isinstance(place, Node):
            return place
        node, axis = place
        size = self.graph.create_node(
            CALL_FUNCTION, sym_size, (node, axis), val=node.val.shape[axis]
        )
        self._symbols[name] = size
        return size

    def place(self, name: str) -> Node | tuple[Node, int]:
        """Give the node of a symbol, or a node and the axis that has it."""
        if name not in self._symbols:
            self._scan()
        if name not in self._symbols:
            raise GraphError(
                f"the size {name} is in no tensor of the graph",
                fix="return it, or a tensor of that size, from the operator that makes it",
            )
        return self._symbols[name]

    def beside(self, name: str) -> Sizes:
        """Give the sizes for nodes put right behind what makes a symbol."""
        made = Sizes(self.graph)
        made._symbols[name] = self.place(name)
        return made

    def _scan(self) -> None:
        """Note the symbols of all nodes since the last look, so that all looks are linear."""
        node = self._scanned
        while node is not self.graph.last:
            node = node.next
            self._note(node, node.val)
        self._scanned = node

    def _note(self, node: Node, val: Any) -> None:
        if val.__class__ is SymInt:
            self._first(val, node)
        elif val.__class__ is Meta and node.op in (CALL_FUNCTION, PLACEHOLDER, GET_ATTR):
            for axis, size in enumerate(val.shape):
                if size.__class__ is SymInt:
                    self._first(size, (node, axis))

    def _first(self, size: Any, place: Node | tuple[Node, int]) -> None:
        expr = size.expr
        if len(expr.terms) == 1 and not expr.const and expr.terms[0][1] == 1:
            name = str(expr)
            if name.isidentifier():
                self._symbols.setdefault(name, place)


def _same(value: Any) -> Any:
    return value


def add_assertions(sizes: Sizes, env: ShapeEnv) -> None:
    """Add what a program asserts of sizes that depend on data (S153).

    The range of a size is asserted right behind what makes it, so that nothing
    runs with a size that its rule never promised.
    """
    graph = sizes.graph
    for guard in env.runtime_asserts:
        names = guard.condition.symbols()
        if not all(_is_known(sizes, name) for name in names):
            continue  # the size was never used, so its operator is not in the graph
        places = [sizes.place(name) for name in names]
        makers = [p if isinstance(p, Node) else p[0] for p in places]
        if len(makers) == 1 and makers[0] is not graph.last:
            with graph.inserting_before(makers[0].next):
                _assert(sizes.beside(names[0]), guard)
        else:
            _assert(sizes, guard)


def _is_known(sizes: Sizes, name: str) -> bool:
    try:
        sizes.place(name)
    except GraphError:
        return False
    return True


def _assert(sizes: Sizes, guard: Guard) -> None:
    condition = sizes.compute(guard.condition)
    if isinstance(condition, Node):
        condition.val = None
        message = f"{guard.text} ({guard.message or guard.place})"
        sizes.graph.create_node(CALL_FUNCTION, assert_holds, (condition, message))


__all__ = ["Sizes", "add_assertions", "assert_holds", "sym_size"]
