"""ONNX Runtime runs parts of programs: what it takes, its models, and their runs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from polyop.dispatch.operator import OpOverload
from polyop.errors import DelegateError, PolyopError, first_line
from polyop.export.lowered import CompileSpec, Executor, LoweredModule
from polyop.export.onnx import pointwise, reductions, views
from polyop.export.onnx.model import OnnxModel, Value
from polyop.export.onnx.registry import TRANSLATIONS, Untranslatable
from polyop.export.program import Program
from polyop.graph import Graph, Node
from polyop.graph.node import GET_ATTR, OUTPUT, PLACEHOLDER, map_nodes
from polyop.layers.trace.sizes import sym_size
from polyop.schema.values import thaw
from polyop.symbolic import is_symbolic, sym_max, sym_min
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor, of_array

#: The modules whose import fills the table of translations.
FAMILIES = (pointwise, reductions, views)
#: How the names of results begin that are sizes.
SIZE = "size_"
#: Operators that compute nothing: a part of these alone is not worth a call.
TRIVIAL = frozenset(
    ["Identity", "Shape", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Slice", "Gather"]
)


def _size(kind: str) -> Callable[..., Value]:
    def translate(model: OnnxModel, *operands: Any) -> Value:
        given = [model.constant(x, np.int64) if type(x) is int else x for x in operands]
        return model.op(kind, *given)

    return translate


def _size_of(model: OnnxModel, x: Value, axis: int) -> Value:
    place = axis % model.meta(x).ndim
    shape = model.op("Shape", x, start=place, end=place + 1)
    return model.op("Squeeze", shape, model.constant([0], np.int64))


#: What is computed of sizes; no size is negative, so that ONNX divides as Python does.
SIZES: dict[Any, Callable[..., Value]] = {
    sym_size: _size_of, operator.add: _size("Add"), operator.mul: _size("Mul"),
    operator.sub: _size("Sub"), sym_max: _size("Max"), sym_min: _size("Min"),
}  # fmt: skip


class OnnxBackend:
    """ONNX Runtime on the CPU.

    It takes an operator if there is a translation of it, and if ONNX Runtime
    itself accepts that as a model of one operator.
    """

    backend_id = "onnx"

    def __init__(self) -> None:
        self._known: dict[Any, bool] = {}

    def takes(self, node: Node) -> bool:
        """Tell whether it can run a node."""
        if node.target not in TRANSLATIONS and node.target not in SIZES:
            return False
        key = _key(node)
        if key not in self._known:
            self._known[key] = _accepted(node)
        return self._known[key]

    def worth(self, nodes: Sequence[Node]) -> bool:
        """Tell whether a part computes anything."""
        return any(
            node.target not in SIZES and getattr(node.target, "_opname", "") not in VIEWS
            for node in nodes
        )

    def lower(self, program: Program, compile_specs: Sequence[CompileSpec]) -> bytes:
        """Give a part as the bytes of an ONNX model."""
        for spec in compile_specs:
            if spec.key != "threads":
                raise DelegateError(
                    f"ONNX Runtime has no option {spec.key!r} here", declared="threads: int",
                    seen=spec,
                )  # fmt: skip
        try:
            model = Writer(program.graph_module.get_attr).graph(program.graph)
        except Untranslatable as error:
            raise DelegateError(
                f"a part has no ONNX form: {error}", fix="take it in parts: partition"
            ) from error
        return to_bytes(model)

    def executor(self, lowered: LoweredModule) -> Executor:
        """Give the function that runs a part."""
        threads = dict(lowered.compile_specs).get("threads", 0)
        run = start(lowered.payload, threads)
        names = [one.name for one in run.get_inputs()]
        results = [one.name for one in run.get_outputs()]
        are_sizes = [name.startswith(SIZE) for name in results]

        def execute(*args: Any) -> tuple[Any, ...]:
            found = run.run(results, dict(zip(names, map(_array, args), strict=True)))
            return tuple(
                int(x) if is_size else of_array(np.asarray(x))
                for x, is_size in zip(found, are_sizes, strict=True)
            )

        return execute


VIEWS = frozenset(op._opname for op in TRANSLATIONS if isinstance(op, OpOverload) and op.is_view)


def _array(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return np.asarray(value, np.int64)
    payload = value.payload
    if payload.__class__ is not np.ndarray:
        raise DelegateError(
            "ONNX Runtime runs on tensors with data on the CPU", seen=type(payload).__name__,
            fix="call the original program: lowered.original_module.module()",
        )  # fmt: skip
    return payload


def start(payload: bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """Give a session of a model.

    Raises:
        DelegateError: ONNX Runtime refuses it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise DelegateError(
            "ONNX Runtime refuses the model of a part", seen=first_line(error),
            fix="lower the program again with this version of onnxruntime",
        ) from error  # fmt: skip


def to_bytes(model: ir.Model) -> bytes:
    """Give a model as bytes."""
    return bytes(ir.serde.serialize_model(model).SerializeToString())


# -- models -------------------------------------------------------------------


class Writer:
    """Writes nodes of a graph into a model."""

    def __init__(self, get_attr: Callable[[str], Any]) -> None:
        self.model = OnnxModel()
        self.get_attr = get_attr
        self.values: dict[Node, Any] = {}

    def graph(self, graph: Graph) -> ir.Model:
        """Give the model of a whole graph."""
        for node in graph.nodes:
            if node.op != OUTPUT:
                self.node(node)
        output = graph.output_node
        assert output is not None
        return self.finish(output.args[0])

    def node(self, node: Node) -> None:
        """Write one node."""
        if node.op == PLACEHOLDER:
            self.values[node] = self.model.input(node.name, node.val)
        elif node.op == GET_ATTR:
            tensor = self.get_attr(node.target)
            if not isinstance(tensor, Tensor) or tensor.payload.__class__ is not np.ndarray:
                raise Untranslatable(f"the attribute {node.target}")
            self.values[node] = self.model.constant(tensor.payload)
        else:
            self.values[node] = self.call(node)
        if isinstance(node.val, Meta):
            self.model.metas[self.values[node]] = node.val

    def call(self, node: Node) -> Any:
        """Write one call."""
        args, kwargs = map_nodes(self.values.__getitem__, (node.args, node.kwargs))
        if node.target in SIZES:
            return SIZES[node.target](self.model, *args)
        self.model.out = node.val
        places, named = bound(node.target, args, kwargs)
        return TRANSLATIONS[node.target](self.model, *places, **named)

    def finish(self, results: Sequence[Node]) -> ir.Model:
        """Give the model with some values as its results."""
        outputs = [
            (f"{SIZE if not isinstance(n.val, Meta) else 'tensor_'}{i}", self.values[n], n.val)
            for i, n in enumerate(results)
        ]
        return self.model.finish(outputs)


def bound(op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Give all arguments of a call, those with defaults too, by position and by name."""
    places: list[Any] = []
    named: dict[str, Any] = {}
    for i, argument in enumerate(op._schema.arguments):
        if not argument.kwarg_only and i < len(args):
            value = args[i]
        elif argument.name in kwargs:
            value = kwargs[argument.name]
        else:
            value = thaw(argument.default_value)
        if argument.kwarg_only:
            named[argument.name] = value
        else:
            places.append(value)
    return places, named


def _key(node: Node) -> Any:
    def text(given: Node) -> str:
        return f"<{given.val!r}>"

    return node.target, repr(map_nodes(text, (node.args, node.kwargs))), repr(node.val)


def _accepted(node: Node) -> bool:
    """Tell whether ONNX Runtime accepts a model of one node."""
    if isinstance(node.target, OpOverload) and not isinstance(node.val, Meta):
        return False  # several results, or none
    writer = Writer(_no_attribute)
    try:
        for given in node.all_input_nodes:
            if not isinstance(given.val, Meta) and not _is_size(given):
                return False
            writer.values[given] = writer.model.input(f"in_{len(writer.values)}", given.val)
        writer.node(node)
        start(to_bytes(writer.finish([node])))
    except (Untranslatable, PolyopError):
        return False
    return True


def _is_size(node: Node) -> bool:
    return is_symbolic(node.val) or node.target in SIZES


def _no_attribute(name: str) -> Any:
    raise Untranslatable(name)
