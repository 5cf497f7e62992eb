"""Programs as JSON: the way in. Names are looked up; nothing of the file is run."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from functools import reduce
from typing import Any

import numpy as np

from polyop import tree
from polyop.devices import DTYPES, Device
from polyop.dispatch.late_operators import bring
from polyop.dispatch.namespaces import ops
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import OperatorNotFoundError, ProgramFileError, nearest
from polyop.export.encode import OWN_ENUMS, PLAIN_FUNCTIONS
from polyop.export.functions import (
    call_custom_autograd_function,
    call_loaded_autograd_function,
)
from polyop.export.lowered import CompileSpec, LoweredModule
from polyop.export.program import Program
from polyop.export.signature import Dimension, InputSpec, OutputSpec, Signature
from polyop.graph import Graph, GraphModule, Node
from polyop.graph.node import CALL_FUNCTION, GET_ATTR, KINDS, OUTPUT, PLACEHOLDER
from polyop.layers.fake import FakeTensorMode
from polyop.schema.classes import class_named
from polyop.symbolic import Guard, ShapeEnv, SymBool
from polyop.tensor.tensor import Tensor, of_array


def operators_of(known: dict[str, dict[str, str]]) -> dict[str, OpOverload]:
    """Find the operators that a program needs.

    Raises:
        ProgramFileError: one is missing, or has another schema or version.
    """
    found = {}
    for name, facts in known.items():
        bring(name)
        definition = DEFINITIONS.get(name)
        if definition is None:
            raise ProgramFileError(
                f"the program needs the operator {name}, which is not defined{_near(name)}",
                op=name,
                declared=facts["schema"],
                fix=_import(facts["module"]),
            )
        if str(definition.op._schema) != facts["schema"]:
            raise ProgramFileError(
                f"the operator {name} has another schema than the program was made with",
                op=name,
                declared=facts["schema"],
                seen=definition.op._schema,
                source=definition.op.source,
                fix=_import(facts["module"]) + ", in the version of then, or export again",
            )
        found[name] = definition.op
    return found


def _near(name: str) -> str:
    bare = name.partition("@")[0]
    versions = [n for n in DEFINITIONS if n.partition("@")[0] == bare]
    return f"; there is {', '.join(versions)}" if versions else nearest(name, DEFINITIONS)


def _import(module: str) -> str:
    return f"import {module} first" if module else "import the module that defines it first"


class Decoder:
    """Makes programs of JSON and the bytes beside it.

    Args:
        arrays: gives raw bytes by number.
        operators: what `operators_of` gave.
    """

    def __init__(self, arrays: Callable[[int], bytes], operators: dict[str, OpOverload]) -> None:
        self.arrays = arrays
        self.operators = operators
        self._tensors: dict[int, Tensor] = {}

    def program(self, data: dict[str, Any]) -> Program:
        """Make a program."""
        sizes = Sizes(data["symbols"], data["unbacked"])
        constraints = tuple(sizes.constraint(*pair) for pair in data["constraints"])
        module = self.module(data["graph"], sizes)
        inputs = tuple(
            InputSpec(path, kind, self.value(value), grad)
            for path, kind, value, grad in data["inputs"]
        )
        outputs = tuple(OutputSpec(kind, self.value(value)) for kind, value in data["outputs"])
        state = [n.target for n in module.graph.nodes if n.op == GET_ATTR]
        tensors = {n: t for n in state if isinstance(t := module.get_attr(n), Tensor)}
        signature = Signature(
            inputs, outputs, tuple(data["written"]),
            tuple(n for n, t in tensors.items() if t.requires_grad),
            tuple(n for n, t in tensors.items() if not t.requires_grad),
        )  # fmt: skip
        specs = [tree.structure(self.value(data[name])) for name in ("arguments", "results")]
        _check_counts(signature, module.graph, specs)
        return Program(
            module, signature, specs[0], specs[1], tuple(data["names"]), sizes.dims,
            tuple(c for c in constraints if c is not None), sizes.mode,
        )  # fmt: skip

    def module(self, data: dict[str, Any], sizes: Sizes) -> GraphModule:
        """Make a graph with its attributes."""
        graph = Graph()
        nodes: list[Node] = []
        for item in data["nodes"]:
            nodes.append(self.node(graph, item, nodes, sizes))
        attributes = {n: self.attribute(v, sizes) for n, v in data["attributes"].items()}
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
            return self.operators[name]
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
        if kind in {"record", "object"}:
            return self.record(data, nodes)
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
        if kind == "enum":
            return member_of(held, data["member"])
        raise ProgramFileError(f"the file has a value of an unknown kind: {kind!r}")

    def record(self, data: dict[str, Any], nodes: Sequence[Node]) -> Any:
        """Make a record of a class that is there already; nothing is imported."""
        if "object" in data:
            cls = class_named(data["object"])
            make = getattr(cls, "__obj_unflatten__", None)
            if make is None:
                raise ProgramFileError(
                    f"the program holds an object of {data['object']}, which is not registered "
                    "or has no __obj_unflatten__",
                    fix="import the module that registers it first",
                )
            return make(tuple((k, self.value(v, nodes)) for k, v in data["flat"]))
        cls = loaded_class(data["record"])
        return cls(*[self.value(item, nodes) for item in data["fields"]])


def loaded_class(path: str) -> type:
    """Give a record class that is imported already.

    Raises:
        ProgramFileError: it is not, or is no record.
    """
    module, _, name = path.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    is_record = isinstance(found, type) and (
        hasattr(found, "__dataclass_fields__")
        or (issubclass(found, tuple) and hasattr(found, "_fields"))
    )
    if not is_record:
        raise ProgramFileError(
            f"the program holds a record of the class {name}, which is not there",
            seen=path,
            fix=_import(module),
        )
    return found  # type: ignore[no-any-return]


def member_of(name: str, member: str) -> Enum:
    """Give a member of an Enum that is known by name (S215)."""
    cls = OWN_ENUMS.get(name) or class_named(name)
    if cls is None or not issubclass(cls, Enum):
        raise ProgramFileError(
            f"the program holds a member of the Enum {name}, which is not there",
            fix=_import(name.rpartition(".")[0]),
        )
    if member not in cls.__members__:
        raise ProgramFileError(
            f"the Enum {name} has no member {member!r}{nearest(member, cls.__members__)}",
            declared=", ".join(cls.__members__),
        )
    return cls[member]


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
