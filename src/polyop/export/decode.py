"""Programs as JSON: the way in. Names are looked up; nothing of the file is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from polyop import tree
from polyop.devices import DTYPES, Device
from polyop.dispatch.below import FLOORS, below
from polyop.dispatch.namespaces import ops
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import OperatorNotFoundError, ProgramFileError, nearest
from polyop.export.classes import (
    check_classes,
    import_first,
    loaded_class,
    member_of,
    object_of,
    opaque_name,
)
from polyop.export.derived import operator_by_name
from polyop.export.encode import PLAIN_FUNCTIONS
from polyop.export.functions import (
    call_custom_autograd_function,
    call_loaded_autograd_function,
)
from polyop.export.lowered import CompileSpec, LoweredModule
from polyop.export.objects import ObjectInput
from polyop.export.program import Program
from polyop.export.results import attributes
from polyop.export.signature import ASKED, Dimension, InputSpec, OutputSpec, Signature
from polyop.export.wrapper_forms import check_given, wrapper_of
from polyop.graph import Graph, GraphModule, Node
from polyop.graph.node import CALL_FUNCTION, GET_ATTR, KINDS, OUTPUT, PLACEHOLDER
from polyop.layers.fake import FakeTensorMode
from polyop.symbolic import Guard, ShapeEnv, SymBool, is_symbolic
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor, of_array


def operators_of(known: dict[str, dict[str, str]]) -> dict[str, OpOverload]:
    """Find the operators that a program needs.

    Raises:
        ProgramFileError: one is missing, or has another schema or version.
    """
    found = {}
    for name, facts in known.items():
        op = operator_by_name(name)
        if op is None:
            raise ProgramFileError(
                f"the program needs the operator {name}, which is not defined{_near(name)}",
                op=name,
                declared=facts["schema"],
                fix=import_first(facts["module"]),
            )
        if str(op._schema) != facts["schema"]:
            raise ProgramFileError(
                f"the operator {name} has another schema than the program was made with",
                op=name,
                declared=facts["schema"],
                seen=op._schema,
                source=op.source,
                fix=import_first(facts["module"]) + ", in the version of then, or export again",
            )
        found[name] = op
    return found


def _asked(path: str, names: list[Any]) -> tuple[str, ...]:
    """Read what an input must be besides.

    Raises:
        ProgramFileError: it is nothing that is checked here.
    """
    unknown = [name for name in names if name not in ASKED]
    if unknown:
        raise ProgramFileError(
            f"the file asks of the input {path} what is not known here",
            declared=", ".join(ASKED),
            seen=repr(unknown[0]),
            fix="export it again, or load it with the version of polyop that saved it",
        )
    return tuple(names)


def _near(name: str) -> str:
    bare = name.partition("@")[0]
    versions = [n for n in DEFINITIONS if n.partition("@")[0] == bare]
    return f"; there is {', '.join(versions)}" if versions else nearest(name, DEFINITIONS)


class Decoder:
    """Makes programs of JSON and the bytes beside it.

    Args:
        arrays: gives raw bytes by number.
        operators: what `operators_of` gave.
        objects: the forms of the opaque references; each may hold those before it.
    """

    def __init__(
        self,
        arrays: Callable[[int], bytes],
        operators: dict[str, OpOverload],
        objects: Sequence[Any] = (),
    ) -> None:
        self.arrays = arrays
        self.operators = operators
        self._tensors: dict[int, Tensor] = {}
        self._objects: list[Any] = []
        for form in objects:
            self._objects.append(object_of(form, self.value))

    def program(self, data: dict[str, Any]) -> Program:
        """Make a program."""
        sizes = Sizes(data["symbols"], data["unbacked"])
        constraints = tuple(sizes.constraint(*pair) for pair in data["constraints"])
        module = self.module(data["graph"], sizes)
        inputs = tuple(
            InputSpec(path, kind, self.value(value), grad, _asked(path, asked))
            for path, kind, value, grad, *asked in data["inputs"]
        )
        outputs = tuple(OutputSpec(kind, self.value(value)) for kind, value in data["outputs"])
        signature = Signature(inputs, outputs, tuple(data["written"]), *attributes(module))
        specs = [tree.structure(self.value(data[name])) for name in ("arguments", "results")]
        _check_counts(signature, module.graph, specs)
        check_given(*specs)
        _add_objects(signature, module)
        return Program(
            module, signature, specs[0], specs[1], tuple(data["names"]), sizes.dims,
            tuple(c for c in constraints if c is not None), sizes.mode, data.get("by_key") is True,
        )  # fmt: skip

    def module(self, data: dict[str, Any], sizes: Sizes) -> GraphModule:
        """Make a graph with its attributes."""
        graph = Graph()
        nodes: list[Node] = []
        for item in data["nodes"]:
            nodes.append(self.node(graph, item, nodes, sizes))
        attributes = {n: self.attribute(v, sizes) for n, v in data["attributes"].items()}
        for node in (n for n in nodes if n.op == GET_ATTR):
            if isinstance(inner := attributes.get(node.target), (GraphModule, LoweredModule)):
                node.val = inner  # passes look at what a call of it does
        module = GraphModule(attributes, graph, "Program")
        graph.lint(module)
        return module

    def node(self, graph: Graph, data: dict[str, Any], nodes: list[Node], sizes: Sizes) -> Node:
        """Add a node to a graph."""
        kind = data["op"]
        if kind not in KINDS:
            raise ProgramFileError(f"the file has a node of an unknown kind: {kind!r}")
        target = data["target"]
        if kind == CALL_FUNCTION:
            target = self.target(target)
        elif kind not in (PLACEHOLDER, GET_ATTR, OUTPUT):
            raise ProgramFileError(f"no program has nodes of the kind {kind}", seen=target)
        args = tuple(self.value(arg, nodes) for arg in data.get("args", ()))
        kwargs = {str(k): self.value(v, nodes) for k, v in data.get("kwargs", {}).items()}
        val = sizes.described(data.get("val"))
        return graph.create_node(kind, target, args, kwargs, name=str(data["name"]), val=val)

    def target(self, name: str) -> Any:
        """Find what a node calls."""
        kind, _, rest = name.partition("::")
        if kind == "function":
            return PLAIN_FUNCTIONS[rest]
        if kind != "higher_order":
            return self.operator(name)
        if rest == call_custom_autograd_function.name():
            return call_loaded_autograd_function
        try:
            return getattr(ops.higher_order, rest)
        except OperatorNotFoundError:
            raise ProgramFileError(
                f"the program needs the higher-order operator {rest}, which is not defined",
                op=rest,
                fix="import the module that defines it first",
            ) from None

    def operator(self, name: str) -> OpOverload:
        """Find an operator, or one below kernels that have acted."""
        kind, _, rest = name.partition("::")
        floor, _, whole = rest.partition("::")
        if kind != "below" or floor not in FLOORS:
            return self.operators[name]
        return below(self.operators[whole], floor)

    # -- attributes -----------------------------------------------------------

    def attribute(self, data: dict[str, Any], sizes: Sizes) -> Any:
        """Make what a graph reads from its module."""
        if "tensor" in data:
            return self.tensor(data["tensor"])
        if "graph" in data:
            return self.module(data["graph"], sizes)
        if "lowered" in data:
            return self.lowered(data["lowered"])
        return self.value(data["value"])

    def lowered(self, data: dict[str, Any]) -> LoweredModule:
        """Make a lowered module."""
        program = None if data["program"] is None else self.program(data["program"])
        specs = [CompileSpec(str(key), self.value(value)) for key, value in data["specs"]]
        return LoweredModule(program, data["backend"], self.arrays(data["payload"]), specs)

    def tensor(self, data: dict[str, Any]) -> Tensor:
        """Make a tensor; one that was several attributes is one again."""
        number = data["data"]
        if number not in self._tensors:
            dtype, shape = DTYPES[data["dtype"]], tuple(data["shape"])
            raw = self.arrays(number)
            if any(type(n) is not int or n < 0 for n in shape):
                raise ProgramFileError("a constant has no valid shape", seen=shape)
            if len(raw) != math.prod(shape) * dtype.itemsize:
                raise ProgramFileError(
                    "a constant has another number of bytes than its shape says",
                    declared=f"{dtype.name}{list(shape)}",
                    seen=f"{len(raw)} bytes",
                )
            little = np.frombuffer(raw, dtype.newbyteorder("<"))
            array = little.astype(dtype).reshape(shape)
            made = self._tensors[number] = of_array(array)
            if data["requires_grad"]:
                made.requires_grad_()
        return self._tensors[number]

    # -- values ---------------------------------------------------------------

    def value(self, data: Any, nodes: Sequence[Node] = ()) -> Any:
        """Make an argument."""
        if isinstance(data, list):
            return [self.value(item, nodes) for item in data]
        if not isinstance(data, dict):
            return data
        if not data:
            raise ProgramFileError("the file has a value without a kind")
        kind, held = next(iter(data.items()))
        if kind == "node":
            if type(held) is not int or not 0 <= held < len(nodes):
                raise ProgramFileError("a node reads one that is not there", seen=held)
            return nodes[held]
        if kind == "tuple":
            return tuple(self.value(item, nodes) for item in held)
        if kind == "dict":
            return {self.value(k, nodes): self.value(v, nodes) for k, v in held}
        if kind == "slice":
            return slice(*[self.value(item, nodes) for item in held])
        if kind == "record":
            cls, values = loaded_class(held), [self.value(item, nodes) for item in data["fields"]]
            return cls(*values) if issubclass(cls, tuple) else tree.made_record(cls, None, values)
        if kind in {"wrapper", "argument"}:
            return wrapper_of(data, lambda item: self.value(item, nodes))
        if kind == "object":
            return object_of(data, lambda item: self.value(item, nodes))
        return self.constant(kind, held, data)

    def constant(self, kind: str, held: Any, data: dict[str, Any]) -> Any:
        """Make a constant that JSON has no form for."""
        if kind == "float":
            return float(held)
        if kind == "complex":
            return complex(*[self.value(part) for part in held])
        if kind == "dtype":
            return DTYPES[held]
        if kind == "device":
            return Device(held)
        if kind == "bytes":
            return self.arrays(held)
        if kind == "ellipsis":
            return Ellipsis
        if kind == "class":
            return loaded_class(held)
        if kind == "enum":
            return member_of(held, data["member"])
        if kind == "tensor":
            return self.tensor(held)
        if kind == "operator":
            return self.operator(held)
        if kind == "reference":
            return self.reference(held)
        raise ProgramFileError(f"the file has a value of an unknown kind: {kind!r}")

    def reference(self, number: Any) -> Any:
        """Give an object that the file has once, however often it is read."""
        if type(number) is not int or not 0 <= number < len(self._objects):
            raise ProgramFileError("the file has no object of that number", seen=number)
        return self._objects[number]


def _add_objects(signature: Signature, module: GraphModule) -> None:
    """Let the graph know the classes of its inputs, and verify who takes what."""
    pairs = zip(signature.of_graph, module.graph.placeholders, strict=True)
    specs = {node: signature.inputs[i] for i, node in pairs}
    names = {node.name: spec.value for node, spec in specs.items() if spec.kind == "object"}
    for node, spec in specs.items():
        _check_kind(spec, node)
        if spec.kind == "object":
            node.val = ObjectInput(opaque_name(spec.value))
    check_classes(module, names)


def _check_kind(spec: InputSpec, node: Node) -> None:
    """Refuse an input that the graph knows as another kind."""
    known = {"tensor": isinstance(node.val, Meta), "size": is_symbolic(node.val)}
    if not known.get(spec.kind, spec.kind == "object" and node.val is None):
        raise ProgramFileError(
            f"the file has the input {spec.path} as a kind that the graph does not know it as",
            declared=spec.kind,
            seen=node.val,
        )


def _check_counts(signature: Signature, graph: Graph, specs: Sequence[Any]) -> None:
    """Refuse a signature that does not fit its graph."""
    output = graph.output_node
    assert output is not None  # the graph was verified
    results = output.args[0]
    wanted = [spec.value for spec in signature.outputs if spec.kind == "result"]
    given = [spec.value for spec in signature.outputs if spec.kind == "input"]
    fits = (
        len(signature.inputs) == specs[0].num_leaves
        and len(signature.outputs) == specs[1].num_leaves
        and len(signature.of_graph) == len(graph.placeholders)
        and isinstance(results, list)
        and all(type(n) is int and 0 <= n < len(signature.inputs) for n in given)
        and all(n in signature.of_graph for n in signature.written)
        and all(type(n) is int and 0 <= n < len(results) - len(signature.written) for n in wanted)
    )
    if not fits:
        raise ProgramFileError("the signature of the file does not fit its graph", seen=signature)


class Sizes:
    """The symbols of a loaded program, in an environment of their own."""

    def __init__(self, symbols: Sequence[Any], unbacked: Sequence[Any]) -> None:
        self.env = ShapeEnv()
        self.mode = FakeTensorMode(
            allow_non_fake_inputs=True, shape_env=self.env, static_shapes=True
        )
        self.known: dict[str, Any] = {}
        self.dims: dict[str, Dimension] = {}
        for name, label, lo, hi, hint in symbols:
            made = self.env.create_symbol(hint, dynamic=True, min=lo, max=hi)
            self.known[name] = made
            self.dims[str(made)] = Dimension(str(made), label, lo, hi, hint)
        for name, lo, hi in unbacked:
            self.known[name] = self.env.create_unbacked(min=lo or 0, max=hi)

    def constraint(self, data: Any, message: str) -> Guard | None:
        """Make a constraint, which the environment knows from now on."""
        condition = self.size(data)
        if not isinstance(condition, SymBool):
            return None
        guard = Guard(condition.condition, message=message)
        if not bool(condition):
            raise ProgramFileError("a constraint of the file does not hold at export", seen=data)
        return guard

    def size(self, data: Any) -> Any:
        """Make a size or a condition."""
        if isinstance(data, list):
            op, *operands = data
            values = [self.size(item) for item in operands]
            if op == "not":
                return values[0].__invert__() if isinstance(values[0], SymBool) else not values[0]
            if op in {"and", "or"}:
                return reduce(_connect[op], values)
            return PLAIN_FUNCTIONS[op](*values)
        return self.known[data] if isinstance(data, str) else data

    def described(self, data: Any) -> Any:
        """Make what a graph knows of a value."""
        if isinstance(data, list):
            return [self.described(item) for item in data]
        if data is None:
            return None
        if "size" in data:
            return self.size(data["size"])
        strides = data.get("strides")
        return self.mode.space.meta(
            tuple(self.size(n) for n in data["shape"]),
            DTYPES[data["dtype"]],
            None if strides is None else tuple(self.size(n) for n in strides),
            Device(data.get("device", "cpu")),
        )


_connect: dict[str, Callable[[Any, Any], Any]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
}
