"""`Program`: an exported function, its signature, and the inputs that it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NoReturn

from polyop import tree
from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import word
from polyop.errors import CaptureError, UsageTypeError
from polyop.export.check import Checker
from polyop.export.objects import assert_answer, assert_state
from polyop.export.signature import Dimension, Signature
from polyop.export.wrappers import (
    apart,
    count_writes,
    has_wrappers,
    refuse_gradients,
    together,
    wrappers_of,
)
from polyop.graph import Graph, GraphModule, Node
from polyop.graph.module import tensors_held
from polyop.graph.node import GET_ATTR
from polyop.layers.fake import FakeTensorMode
from polyop.layers.trace.sizes import assert_holds
from polyop.lazy import load
from polyop.ops.inplace import copy_
from polyop.symbolic import Guard
from polyop.tensor.tensor import Tensor
from polyop.tree.same import key_orders

#: What a graph calls to stop where a fact of its capture does not hold.
ASSERTIONS = (assert_holds, assert_answer, assert_state)


def _assertion(node: Node) -> str:
    if node.target is assert_holds:
        return str(node.args[1])
    asked, known = node.args[2:0:-1] if node.target is assert_answer else node.args[1:]
    return f"{asked} is {known!r}"


@dataclass(frozen=True, eq=False)
class Program:
    """An exported function; made by `export` and `load`.

    The graph writes nothing: it takes the leaves of the arguments, and gives the
    new values of those that the function writes, then the results. `module()`
    gives the function again.

    Attributes:
        graph_module: the graph with its parameters and constants.
        signature: inputs and results, flat.
        in_spec: the structure of `(args, kwargs)`.
        out_spec: the structure of the results.
        names: the parameters that take the positional arguments.
        dims: by symbol, the sizes that may change.
        constraints: what must hold of these sizes besides their ranges.
        mode: the fake mode of what the graph knows of its values.
        by_key: whether dicts may have their keys in any order.
    """

    graph_module: GraphModule
    signature: Signature
    in_spec: Any
    out_spec: Any
    names: tuple[str, ...]
    dims: Mapping[str, Dimension]
    constraints: tuple[Guard, ...]
    mode: FakeTensorMode
    by_key: bool = False

    @property
    def graph(self) -> Graph:
        """Give the graph."""
        return self.graph_module.graph

    @property
    def state(self) -> dict[str, Any]:
        """Give what the graph reads besides its inputs, by name."""
        names = [n.target for n in self.graph.nodes if n.op == GET_ATTR]
        return {name: self.graph_module.get_attr(name) for name in dict.fromkeys(names)}

    @property
    def ranges(self) -> dict[str, tuple[int, int | None]]:
        """Give the least and the greatest value of each size that may change."""
        return {dim.label: (dim.lo, dim.hi) for dim in self.dims.values()}

    @property
    def assertions(self) -> list[str]:
        """List what the graph asserts when it runs."""
        return [_assertion(n) for n in self.graph.nodes if n.target in ASSERTIONS]

    @cached_property
    def checker(self) -> Checker:
        """Give the checks of the inputs."""
        values = [node.val for node in self.graph.placeholders]
        signature = self.signature
        return Checker(signature.inputs, signature.written, values, self.dims, self.constraints)

    @cached_property
    def orders(self) -> tuple[Any, ...]:
        """Give the orders of keys in the arguments, if there are dicts of several that matter."""
        if self.by_key:
            return ()
        found = _orders(*tree.unflatten(self.in_spec, range(self.in_spec.num_leaves)))
        return found if any(len(keys) > 1 for keys in found) else ()

    @cached_property
    def wraps(self) -> tuple[bool, bool]:
        """Tell whether there are wrappers among the arguments, and among the results."""
        return has_wrappers(self.in_spec), has_wrappers(self.out_spec)

    def __deepcopy__(self, memo: Any) -> Program:
        # What is known of its values is shared, as by graphs; no copy changes it.
        return replace(self, graph_module=deepcopy(self.graph_module, memo))

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: what is called is `module()`.

        Raises:
            UsageTypeError: always.
        """
        raise UsageTypeError(
            "a Program is data, and its module is called", seen="program(...)",
            fix="write program.module()(...)",
        )  # fmt: skip

    def module(self) -> ProgramModule:
        """Give the function that the program is, with checked inputs."""
        return ProgramModule(self)

    def run_decompositions(self, table: Mapping[Any, Any] | None = None) -> Program:
        """Give this program with the functions of a table in the place of its operators."""
        # The tracer that this needs stands above programs.
        run = load("polyop.export.capture:run_decompositions")
        made: Program = run(self, table)
        return made

    def __str__(self) -> str:
        dims = [f"# {d.symbol}: {d.bound}" for d in self.dims.values()]
        constraints = [f"# {guard.text}" for guard in self.constraints]
        notes = [f"# {line}" for line in str(self.signature).splitlines()]
        return "\n".join([str(self.graph), *notes, *dims, *constraints])

    def __repr__(self) -> str:
        return f"<Program of {len(self.graph.nodes)} nodes>"


class ProgramModule:
    """A program as a function: of the arguments that were exported, in the same structure.

    Results that the function makes as views of an input which it also writes
    are copies here; all other results alias what those of the function alias.

    Raises:
        CaptureError: the program was not made for these inputs.
    """

    def __init__(self, program: Program) -> None:
        self.program = program

    @property
    def graph_module(self) -> GraphModule:
        """Give the graph with its parameters and constants."""
        return self.program.graph_module

    @property
    def graph(self) -> Graph:
        """Give the graph."""
        return self.program.graph

    def parameters(self) -> list[Tensor]:
        """List the tensors that require grad, those of lowered modules among them."""
        return [t for t in tensors_held(self.program) if t.keys & GRAD]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check the inputs, run the graph, write what is written."""
        program = self.program
        args, kwargs = _by_position(program.names, args, kwargs)
        given: list[Any] = []
        if program.wraps[0]:
            if word().grad:
                refuse_gradients(tree.leaves((args, kwargs)))
            given = wrappers_of((args, kwargs))
            args, kwargs = apart((args, kwargs))
        leaves = flat_inputs(program, args, kwargs)
        program.checker.check(leaves)
        signature = program.signature
        found = program.graph_module(*[leaves[i] for i in signature.of_graph])
        count = len(signature.written)
        for number, value in zip(signature.written, found, strict=False):
            copy_(leaves[number], value)
        if given and count:
            count_writes(given, [leaves[number] for number in signature.written])
        out = tree.unflatten(program.out_spec, _results(signature, leaves, found[count:]))
        return together(out, [], given) if program.wraps[1] else out

    def __repr__(self) -> str:
        return f"<module of {self.program!r}>"


def _by_position(
    names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    while len(args) < len(names) and names[len(args)] in kwargs:
        kwargs = dict(kwargs)
        args = (*args, kwargs.pop(names[len(args)]))
    return args, kwargs


def flat_inputs(program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Give the leaves of a call's arguments.

    Raises:
        CaptureError: they have another structure than those that were exported.
    """
    leaves, spec = tree.flatten((args, kwargs))
    if spec != program.in_spec:
        raise CaptureError(
            "the arguments have another structure than the program was made for",
            declared=_outline(program.in_spec),
            seen=tree.outline((args, kwargs)),
            fix="give the same containers, with the same keys and lengths",
        )
    if program.orders and (found := _orders(args, kwargs)) != program.orders:
        raise CaptureError(
            "the keys of a dict have another order than in the capture, which the function may see",
            declared=_spelled(program.orders),
            seen=_spelled(found),
            fix="give dicts with their keys in the same order",
        )
    return leaves


def _orders(args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give the orders of keys in the arguments; that of the keyword arguments is no matter."""
    return key_orders((args, [kwargs[name] for name in sorted(kwargs)]))


def _spelled(orders: Sequence[Any]) -> str:
    return "; ".join(", ".join(map(str, keys)) for keys in orders)


def _outline(spec: Any) -> str:
    return tree.outline(tree.unflatten(spec, range(spec.num_leaves)))


def _results(signature: Signature, leaves: Sequence[Any], found: Sequence[Any]) -> list[Any]:
    by_kind = {"result": found, "input": leaves}
    return [
        spec.value if spec.kind == "constant" else by_kind[spec.kind][spec.value]
        for spec in signature.outputs
    ]
