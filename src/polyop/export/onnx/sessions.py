"""Sessions of ONNX Runtime for models that hold authors' operators."""

from __future__ import annotations

from os import PathLike
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime

from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS, as_operator
from polyop.errors import PolyopError
from polyop.export.decode import operators_of
from polyop.export.onnx.calls import (
    CALL,
    MODULE,
    OPERATOR,
    SCHEMA,
    mutable_of,
    refuse_unsayable,
    written_out,
)
from polyop.export.onnx.custom_ops import RUNTIME


def add_onnx_operators(options: onnxruntime.SessionOptions, *ops: Any) -> None:
    """Let the sessions of some options run models with authors' operators.

    Args:
        options: of `onnxruntime.InferenceSession`.
        ops: the operators, in any form, functional twins for those that write; without any, all
            that are defined.

    Raises:
        ArgumentError: an operator is no node: its results are no Tensors.
        DelegateError: there is no C compiler, which is needed once.
    """
    RUNTIME.register(options, [sayable(op) for op in ops] if ops else every_sayable())


def onnx_session(
    model: str | PathLike[str] | bytes,
    options: onnxruntime.SessionOptions | None = None,
    **more: Any,
) -> onnxruntime.InferenceSession:
    """Start a session of a model that holds authors' operators.

    Args:
        model: a file, or its bytes.
        options: of the session.
        more: what `onnxruntime.InferenceSession` takes besides.

    Raises:
        ProgramFileError: an operator is not defined, or has another schema; it names the module
            that is to be imported.
        DelegateError: there is no C compiler, which is needed once.
    """
    found = ir.from_proto(_proto(model)) if isinstance(model, bytes) else ir.load(model)
    options = options or onnxruntime.SessionOptions()
    ops = operators_in(found)
    if ops:
        RUNTIME.register(options, ops)
    more.setdefault("providers", ["CPUExecutionProvider"])
    return onnxruntime.InferenceSession(model, options, **more)


def _proto(model: bytes) -> Any:
    found = onnx.ModelProto()
    found.ParseFromString(model)
    return found


def operators_in(model: ir.Model) -> list[OpOverload]:
    """Find the operators of authors that a model needs.

    Raises:
        ProgramFileError: one is missing, or has another schema.
    """
    known: dict[str, dict[str, str]] = {}
    graphs: list[Any] = [model.graph, *model.functions.values()]
    for graph in graphs:
        for node in ir.traversal.RecursiveGraphIterator(graph):
            if {OPERATOR, SCHEMA, MODULE, CALL} <= set(node.attributes):
                words = {k: node.attributes[k].as_string() for k in (SCHEMA, MODULE)}
                known[node.attributes[OPERATOR].as_string()] = words
    for name in set(known) - set(DEFINITIONS):
        writes = mutable_of(name)
        if writes is not None:
            written_out(writes)  # defines it
    return list(operators_of(known).values())


def sayable(op: Any) -> OpOverload:
    """Give the operator that stands in models for one, in any form.

    Raises:
        ArgumentError: it is no node of a model.
    """
    found = written_out(as_operator(op))
    refuse_unsayable(found)
    return found


def every_sayable() -> list[OpOverload]:
    """Give all authors' operators that can stand in models."""
    found = []
    for definition in list(DEFINITIONS.values()):
        if not definition.op.is_builtin:
            try:
                found.append(sayable(definition.op))
            except PolyopError:
                continue
    return list(dict.fromkeys(found))
