"""`to_backend`: a program with its parts in the forms of backends (S216)."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD
from polyop.errors import UsageTypeError
from polyop.export.delegate import call_delegate
from polyop.export.lowered import Backend, CompileSpec, LoweredModule
from polyop.export.objects import class_name_of, stands_for_object
from polyop.export.parts import Unit, divide
from polyop.export.program import Program
from polyop.export.signature import InputSpec, OutputSpec, Signature
from polyop.graph import Graph, GraphModule, Node
from polyop.graph.node import GET_ATTR, OUTPUT, PLACEHOLDER
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor


def to_backend(
    program: Program, backends: Any, compile_specs: Mapping[str, Any] | None = None
) -> Program:
    """Give a program whose parts are run by backends, each as one `call_delegate` node.

    Args:
        program: the program, which stays as it is.
        backends: a backend or its name, or several, in the order in which they choose.
        compile_specs: options for the backends.

    Raises:
        UsageTypeError: it is no program.
        DelegateError: a backend is not known, or cannot lower what it took.
    """
    if not isinstance(program, Program):
        raise UsageTypeError("to_backend takes a Program", seen=type(program).__name__,
                             fix="make one: polyop.export.export(f, args)")  # fmt: skip
    specs = [CompileSpec(*pair) for pair in (compile_specs or {}).items()]
    return Rebuild(program, specs).run(divide(program.graph, backends))


class Rebuild:
    """The program that is being written, with a call in the place of each part."""

    def __init__(self, program: Program, specs: Sequence[CompileSpec]) -> None:
        self.program = program
        self.specs = specs
        self.graph = Graph()
        self.copies: dict[Node, Node] = {}
        self.attributes: dict[str, Any] = dict(program.state)
        self.count = sum(name.startswith("lowered_module_") for name in self.attributes)

    def run(self, units: Sequence[tuple[Unit, Backend | None]]) -> Program:
        """Write all parts and nodes."""
        last: list[Node] = []
        for unit, backend in units:
            if backend is not None:
                self.part(unit, backend)
            elif unit.nodes[0].op == OUTPUT:
                last = unit.nodes
            else:
                self.copy(unit.nodes[0])
        self.copy(last[0])
        _drop_unread(self.graph)
        module = GraphModule(self.attributes, self.graph, "Program")
        self.graph.lint(module)
        old = self.program
        read = {n.target for n in self.graph.nodes if n.op == GET_ATTR}
        signature = Signature(
            old.signature.inputs, old.signature.outputs, old.signature.written,
            old.signature.parameters, tuple(n for n in old.signature.constants if n in read),
        )  # fmt: skip
        return Program(
            module, signature, old.in_spec, old.out_spec, old.names, old.dims,
            old.constraints, old.mode, old.by_key,
        )  # fmt: skip

    def copy(self, node: Node) -> None:
        """Write a node as it is."""
        self.copies[node] = self.graph.node_copy(node, self.copies.__getitem__)

    def part(self, unit: Unit, backend: Backend) -> None:
        """Write the call of a part, and the items that are taken out of its results."""
        inside = set(unit.nodes)
        inputs, results = self.border(unit, inside)
        part = part_program(self.program, unit.nodes, inputs, results)
        payload = backend.lower(part, self.specs)
        lowered = LoweredModule(part, backend.backend_id, payload, self.specs)
        name = f"lowered_module_{self.count}"
        self.count += 1
        self.attributes[name] = lowered
        read = self.graph.get_attr(name)
        read.val = lowered
        given = [self.copies[node] for node in inputs]
        call = self.graph.call_function(call_delegate, (read, *given))
        call.val = tuple(node.val for node in results)
        for number, node in enumerate(results):
            item = self.graph.call_function(operator.getitem, (call, number))
            item.val = node.val
            self.copies[node] = item

    def border(self, unit: Unit, inside: set[Node]) -> tuple[list[Node], list[Node]]:
        """Give what a part reads, but for constants, and what others read of it."""
        inputs: dict[Node, None] = {}
        for node in unit.nodes:
            inputs.update((n, None) for n in node.all_input_nodes if n not in inside)
        results = [n for n in unit.nodes if any(user not in inside for user in n.users)]
        return [n for n in inputs if not is_constant(self.program, n)], results


def is_constant(program: Program, node: Node) -> bool:
    """Tell whether a node reads what a part may keep; parameters need their gradients."""
    if node.op != GET_ATTR:
        return False
    value = program.graph_module.get_attr(node.target)
    return not (isinstance(value, Tensor) and value.keys & GRAD)


def part_program(
    program: Program, nodes: Sequence[Node], inputs: Sequence[Node], results: Sequence[Node]
) -> Program:
    """Make a program of some nodes: of tensors and sizes, giving a tuple."""
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in inputs:
        copies[node] = graph.create_node(PLACEHOLDER, node.name, name=node.name, val=node.val)
    for node in nodes:
        for given in node.all_input_nodes:
            if given not in copies:  # a constant, which the part keeps
                copies[given] = graph.node_copy(given, copies.__getitem__)
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[node] for node in results])
    module = GraphModule(program.graph_module, graph, "Program")
    kept = dict.fromkeys(n.target for n in graph.nodes if n.op == GET_ATTR)
    specs = tuple(
        InputSpec(n.name, "tensor", None, True) if isinstance(n.val, Meta) else _spec_of(n)
        for n in inputs
    )
    outputs = tuple(OutputSpec("result", i) for i in range(len(results)))
    signature = Signature(specs, outputs, (), (), tuple(kept))
    arguments = (tuple(range(len(inputs))), dict[str, Any]())
    return Program(
        module, signature, tree.structure(arguments), tree.structure(tuple(range(len(results)))),
        tuple(n.name for n in inputs), program.dims, (), program.mode,
    )  # fmt: skip


def _spec_of(node: Node) -> InputSpec:
    """Give the input of a part that is no tensor."""
    if stands_for_object(node.val):
        return InputSpec(node.name, "object", class_name_of(node.val))
    return InputSpec(node.name, "size")


def _drop_unread(graph: Graph) -> None:
    """Remove attributes that only parts read."""
    for node in reversed(graph.nodes):
        if node.op == GET_ATTR and not node.users:
            graph.erase_node(node)
