"""`OnnxModel`: an ONNX model that is being written, and what is known of its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from polyop.devices import DType
from polyop.export.onnx.registry import Untranslatable
from polyop.symbolic import is_symbolic
from polyop.tensor.meta import Meta

OPSET = 21
IR_VERSION = 10
#: Dtypes that ONNX Runtime computes with.
DTYPES = frozenset(
    np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
)
Value = ir.Value


class OnnxModel:
    """A model in the making; translations add operators to it.

    Attributes:
        out: what the graph knows of the result of the call that is being translated.
    """

    def __init__(self) -> None:
        self.tape = Tape()
        self.out: Any = None
        self.metas: dict[Value, Meta] = {}
        self.inputs: list[Value] = []
        self._constants: dict[Any, Value] = {}

    # -- values ---------------------------------------------------------------

    def op(self, kind: str, *inputs: Any, **attributes: Any) -> Value:
        """Add an ONNX operator with one result; None is an input that is left out."""
        return self.tape.op(kind, list(inputs), attributes or None)

    def ops(self, kind: str, count: int, *inputs: Any, **attributes: Any) -> Sequence[Value]:
        """Add an ONNX operator with several results."""
        return self.tape.op_multi_out(kind, list(inputs), attributes or None, num_outputs=count)

    def constant(self, value: Any, dtype: Any = None) -> Value:
        """Give a constant of a number, a list of numbers or an array."""
        array = np.asarray(value, dtype)
        if array.dtype not in DTYPES:
            raise Untranslatable(f"dtype {array.dtype}")
        key = (array.dtype, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
            self._constants[key] = self.tape.initializer(tensor, name=name)
        return self._constants[key]

    def input(self, name: str, known: Any) -> Value:
        """Add an input: a tensor, or a size, which is an int64 without axes."""
        meta = known if isinstance(known, Meta) else None
        dtype = data_type(meta.dtype) if meta else ir.DataType.INT64
        made = ir.Value(name=name, type=ir.TensorType(dtype), shape=onnx_shape(meta))
        self.inputs.append(made)
        if meta is not None:
            self.metas[made] = meta
        return made

    # -- what is known --------------------------------------------------------

    def meta(self, value: Value) -> Meta:
        """Give what is known of an argument."""
        return self.metas[value]

    def dtype(self, value: Value) -> DType:
        """Give the dtype of an argument."""
        return self.metas[value].dtype

    # -- pieces ---------------------------------------------------------------

    def cast(self, value: Value, dtype: DType) -> Value:
        """Convert an argument, where it has another dtype."""
        known = self.metas.get(value)
        if known is not None and known.dtype == dtype:
            return value
        return self.cast_any(value, dtype)

    def cast_any(self, value: Value, dtype: DType) -> Value:
        """Convert a value of which nothing is known."""
        return self.op("Cast", value, to=data_type(dtype))

    def operand(self, value: Any, dtype: DType) -> Value:
        """Give a tensor argument or a Python number as a value of a dtype."""
        if isinstance(value, Value):
            return self.cast(value, dtype)
        if isinstance(value, complex) or value is None:
            raise Untranslatable(repr(value))
        return self.constant(value, dtype)

    def ints(self, items: Any) -> Value:
        """Give a list of ints and sizes as one value with one axis."""
        items = list(items)
        if all(type(item) is int for item in items):
            return self.constant(items, np.int64)
        parts = [
            self.constant([item], np.int64)
            if type(item) is int
            else self.op("Reshape", item, self.constant([1], np.int64))
            for item in items
        ]
        return self.op("Concat", *parts, axis=0)

    def finish(self, outputs: Sequence[tuple[str, Value, Any]]) -> ir.Model:
        """Give the model: outputs are a name, a value, and what is known of it."""
        results = []
        for name, value, known in outputs:
            result = self.op("Identity", value)  # an input or constant may not be an output
            result.name = name
            meta = known if isinstance(known, Meta) else None
            result.type = ir.TensorType(data_type(meta.dtype) if meta else ir.DataType.INT64)
            result.shape = onnx_shape(meta)
            results.append(result)
        graph = ir.Graph(
            self.inputs, results, nodes=self.tape.nodes, initializers=self.tape.initializers,
            opset_imports={"": OPSET}, name="program",
        )  # fmt: skip
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="polyop")


def data_type(dtype: DType) -> ir.DataType:
    """Give ONNX's dtype."""
    if dtype not in DTYPES:
        raise Untranslatable(f"dtype {dtype}")
    return ir.DataType.from_numpy(dtype)


def onnx_shape(meta: Meta | None) -> ir.Shape:
    """Give a shape whose symbolic sizes are ONNX's symbolic dimensions."""
    if meta is None:
        return ir.Shape([])
    return ir.Shape([str(n) if is_symbolic(n) else n for n in meta.shape])
