"""The results of an export: writes to inputs become results, and what is left is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD
from polyop.errors import CaptureError
from polyop.export.inputs import of_graph
from polyop.export.objects import add_checks
from polyop.export.signature import InputSpec, OutputSpec, Signature
from polyop.graph import (
    Graph,
    GraphModule,
    Node,
    eliminate_common_subexpressions,
    eliminate_dead_code,
)
from polyop.graph.node import GET_ATTR
from polyop.ops.define import operator_of
from polyop.ops.inplace import copy_
from polyop.schema.opaque import is_reference
from polyop.tensor.tensor import Tensor

COPY = operator_of(copy_)


def clean(graph: Graph) -> None:
    """Remove what nobody reads, and calls that are made twice."""
    eliminate_dead_code(graph)
    eliminate_common_subexpressions(graph)
    graph.lint()


def finish(module: GraphModule, specs: tuple[InputSpec, ...]) -> Signature:
    """Turn writes to inputs into results, and give the signature."""
    graph = module.graph
    output = graph.output_node
    assert output is not None
    leaves = output.args[0]
    _refuse_kinds(leaves)
    _refuse_hidden(graph)
    given: dict[Node, int] = dict(zip(graph.placeholders, of_graph(specs), strict=True))
    writes = {n: given[n.args[0]] for n in graph.nodes if n.target is COPY and n.args[0] in given}
    given |= writes
    results = [leaf for leaf in leaves if isinstance(leaf, Node) and leaf not in given]
    outputs = tuple(_output(leaf, given, results) for leaf in leaves)
    output.set_args((results,))
    for node in writes:
        node.replace_all_uses_with(node.args[1])
    output.set_args(([*(node.args[1] for node in writes), *output.args[0]],))
    for node in writes:
        graph.erase_node(node)
    _refuse_writes(graph)
    add_checks(module)
    clean(graph)
    module.recompile()
    parameters, constants = attributes(module)
    return Signature(specs, outputs, tuple(writes.values()), parameters, constants)


def _output(leaf: Any, given: Mapping[Node, int], results: Sequence[Node]) -> OutputSpec:
    if not isinstance(leaf, Node):
        return OutputSpec("constant", leaf)
    if leaf in given:
        return OutputSpec("input", given[leaf])
    return OutputSpec("result", results.index(leaf))


def _refuse_writes(graph: Graph) -> None:
    for node in graph.nodes:
        written = [leaf.name for leaf in tree.leaves(_written(node)) if isinstance(leaf, Node)]
        if written:
            raise CaptureError(
                f"the function writes a tensor that is no argument: {node.target}",
                op=node.target._schema,
                seen=", ".join(written),
                fix="pass the tensor as an argument",
            )


def _written(node: Node) -> list[Any]:
    """Give what a call writes: None and empty lists among it are nothing."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    named = [node.kwargs.get(a.name) for a in schema.written]
    pairs = zip(schema.arguments, node.args, strict=False)
    return [*(value for argument, value in pairs if argument.is_write), *named]


def _refuse_hidden(graph: Graph) -> None:
    """Refuse tensors inside arguments that the graph does not look into."""
    for node in graph.nodes:
        if any(isinstance(leaf, Tensor) for leaf in tree.leaves((node.args, node.kwargs))):
            raise CaptureError(
                f"an argument of {node.target} is a record with a tensor in it, which no graph "
                "can follow",
                op=getattr(node.target, "_schema", node.target),
                fix="make the record a NamedTuple or a TypedDict",
            )


def _refuse_kinds(leaves: Sequence[Any]) -> None:
    for leaf in leaves:
        if not isinstance(leaf, (Node, int, float, complex, str, bytes)):
            raise CaptureError(
                "a result is no tensor, number or container of them", seen=type(leaf).__name__
            )


def attributes(module: GraphModule) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the tensors that require grad, and the other tensors and objects that a graph reads."""
    names = dict.fromkeys(n.target for n in module.graph.nodes if n.op == GET_ATTR)
    held = {name: module.get_attr(name) for name in names}
    learned = [n for n, t in held.items() if isinstance(t, Tensor) and t.keys & GRAD]
    fixed = [n for n, t in held.items() if n not in learned and _is_constant(t)]
    return tuple(learned), tuple(fixed)


def _is_constant(value: Any) -> bool:
    return isinstance(value, Tensor) or is_reference(value)
