"""Runs a graph on bare arrays where nobody acts on its calls: no tensor is made on the way.

A graph of built-in operators, without writes, whose results are new memory, is
the same program on the arrays inside its tensors. Each call checks that its
tensors are plain ones on NumPy and that no layer acts; else, or when a kernel
raises, the graph runs as it is written, and errors are those of its operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from polyop import tree
from polyop.dispatch.bind import convert_argument
from polyop.dispatch.bits import GRAD, NUMPY
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import word
from polyop.dispatch.entry import fused_kernel, plain_codes
from polyop.dispatch.operator import CHANGES, OpOverload
from polyop.graph.graph import Graph
from polyop.graph.node import CALL_FUNCTION, OUTPUT, PLACEHOLDER, Node
from polyop.graph.runner import Builder, Program, make_run
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, of_array

#: What a second run, after an error in the first, would not do again in the same way.
NOT_AGAIN = {Tag.nondeterministic_seeded}

#: The most elements of an array whose memory does not matter.
SMALL = 1024


def with_arrays(graph: Graph, whole: Program) -> Program:
    """Give a program that runs on bare arrays where it can, and else another one.

    Args:
        graph: the graph.
        whole: runs the graph as it is written.
    """
    made: tuple[int, frozenset[int], Program | None] = (-1, frozenset(), None)

    def run(*inputs: Any) -> Any:
        nonlocal made
        changes, codes, arrays = made
        if changes != CHANGES[0]:
            changes, codes, arrays = made = (CHANGES[0], *_on_arrays(graph))
        if arrays is None:
            return whole(*inputs)
        code = int(word())
        for t in inputs:
            if t.__class__ is not Tensor or t.payload.__class__ is not np.ndarray:
                return whole(*inputs)
            code |= t.keys
        if code not in codes:
            return whole(*inputs)
        try:
            return arrays(*inputs)
        except Exception:  # the operators say what is wrong, and with what
            return whole(*inputs)

    return run


Found = tuple[frozenset[int], Program | None]
NONE: Found = (frozenset(), None)


def _on_arrays(graph: Graph) -> Found:
    """Give the codes of calls that may run on arrays, and the program for them."""
    codes: frozenset[int] | None = None
    kernels: dict[Node, Callable[..., Any]] = {}
    for node in graph.nodes:
        if node.op in (PLACEHOLDER, OUTPUT):
            continue
        found = _kernel_of(node)
        if found is None:
            return NONE
        kernels[node], own = found
        codes = own if codes is None else codes & own
    if not codes or _gives_old_memory(graph):
        return NONE
    # Who has fewer arguments has fewer bits: a call of those that require no grad is plain too.
    codes = frozenset(code for code in codes if code & ~GRAD in codes)
    return codes, _program(graph, kernels)


def _kernel_of(node: Node) -> tuple[Callable[..., Any], frozenset[int]] | None:
    op = node.target
    if node.op != CALL_FUNCTION or not isinstance(op, OpOverload) or not op.is_builtin:
        return None
    if _form_of(op) not in {"new", "view"} or op._schema.is_mutable:
        return None
    if NOT_AGAIN.intersection(op.tags):
        return None
    kernel = fused_kernel(op)
    if kernel is None or not kernel.payload or kernel.fn is None or not _is_plain(node, op):
        return None
    return kernel.fn, plain_codes(op, kernel) | {NUMPY}


def _form_of(op: OpOverload) -> str:
    forms = result_forms(op._schema)
    return forms[0][0] if len(forms) == 1 else ""


def _is_plain(node: Node, op: OpOverload) -> bool:
    """Tell whether each value that an operator gets from the graph is a tensor, as the result."""
    for argument, value in zip(op._schema.arguments, _values(node, op), strict=True):
        kind = str(argument.type).removesuffix("?")
        if kind == "Device" and value is not None:
            return False  # the result may be no array
        if kind == "Tensor" or (kind == "Tensor[]" and type(value) in (list, tuple)):
            continue
        if any(isinstance(leaf, Node) for leaf in tree.leaves([value])):
            return False
    return True


def _values(node: Node, op: OpOverload) -> list[Any]:
    """List the arguments of a call in the order of the schema, defaults too."""
    given: Mapping[str, Any] = node.kwargs
    values = list(node.args)
    rest = op._schema.arguments[len(values) :]
    return [*values, *[given.get(a.name, a.default_value) for a in rest]]


def _gives_old_memory(graph: Graph) -> bool:
    """Tell whether a result is an input, a view, or no tensor."""
    output = graph.output_node
    leaves = tree.leaves(list(output.args)) if output is not None else []
    return not leaves or not all(
        isinstance(leaf, Node) and leaf.op == CALL_FUNCTION and _form_of(leaf.target) == "new"
        for leaf in leaves
    )


class Arrays(Builder):
    """Gives registers to arrays and instructions to kernels."""

    def __init__(self, kernels: Mapping[Node, Callable[..., Any]]) -> None:
        super().__init__(kernels.__getitem__, None)

    def clears(self, node: Node) -> bool:
        """Say whether memory matters: a small array may stay until its register is needed."""
        shape: Any = getattr(node.val, "shape", None)
        return shape is None or not all(type(n) is int for n in shape) or prod(shape) > SMALL

    def is_flat(self, node: Node) -> bool:
        """Say whether all arguments can be read from registers: kernels change no list."""
        return all(isinstance(v, Node) or not has_node(v) for v in node.args)


def has_node(value: Any) -> bool:
    """Say whether there is a node in a container."""
    return any(isinstance(leaf, Node) for leaf in tree.leaves([value]))


def _program(graph: Graph, kernels: Mapping[Node, Callable[..., Any]]) -> Program:
    """Make the program of kernels; it takes tensors, and gives them."""
    twins: dict[Node, Node] = {}
    bare = Graph()
    of_twins: dict[Node, Callable[..., Any]] = {}
    for node in graph.nodes:
        if node.op == PLACEHOLDER:
            twins[node] = bare.placeholder(node.name)
        elif node.op == CALL_FUNCTION:
            op = node.target
            values = [
                v if has_node(v) else convert_argument(op, i, v)
                for i, v in enumerate(_values(node, op))
            ]
            found = tree.map_leaves(lambda v: twins.get(v, v) if isinstance(v, Node) else v, values)
            twin = twins[node] = bare.call_function(node.target, tuple(found))
            twin.val = node.val
            of_twins[twin] = kernels[node]
    output = graph.output_node
    assert output is not None
    leaves, spec = tree.flatten(output.args[0])
    distinct = list(dict.fromkeys(leaves))
    bare.output(tuple([twins[leaf] for leaf in distinct]))
    builder = Arrays(of_twins)
    builder.plan(bare.nodes)
    for node in bare.nodes:
        builder.add(node)
    run = make_run(builder)
    if spec.is_leaf() and len(leaves) == 1:
        return lambda *inputs: of_array(_array(run(*[t.payload for t in inputs])[0]))
    places = [distinct.index(leaf) for leaf in leaves]

    def several(*inputs: Any) -> Any:
        found = [of_array(_array(x)) for x in run(*[t.payload for t in inputs])]
        return tree.unflatten(spec, [found[i] for i in places])

    return several


def _array(x: Any) -> Any:
    return x if x.__class__ is np.ndarray else np.asarray(x)
