"""Authors' operators in ONNX models that PyTorch exports: one node each, made from the signature.

NOTE [Writes in models]
A model is a function, and its exporter does not know the node in which PyTorch hides a write. So a
call that writes is replaced before, by the call of its functional twin, and a copy of what it gives
into what was to be written: PyTorch knows how to make that copy a function, of views too.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnxscript import values as onnxscript_values

from polyop.bridges.torch.bridge import bridge_of, bridges
from polyop.bridges.torch.kernel import filled
from polyop.bridges.torch.schema import Place, Translation
from polyop.dispatch.operator import OpOverload
from polyop.errors import PolyopError, UsageTypeError
from polyop.export.onnx.c_api import ELEMENTS
from polyop.export.onnx.calls import CALL, Input, facts_of, op_type, to_text, written_out
from polyop.export.onnx.sessions import every_sayable, sayable

_Form = onnx.defs.OpSchema.FormalParameter
_FormOption = onnx.defs.OpSchema.FormalParameterOption
_TYPES = [f"tensor({word})" for word in (
    *("float", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool", "float16", "double"),
    *("uint32", "uint64", "complex64", "complex128", "bfloat16"),
)]  # fmt: skip
Value = ir.Value


def onnx_translations(*ops: Any) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Give the `custom_translation_table` of `torch.onnx.export` for authors' operators.

    Args:
        ops: the operators, in any form, functional twins for those that write; without any, all
            that are defined and can stand in a model.

    Raises:
        ArgumentError: an operator is no node: its results are no Tensors.
    """
    found = [sayable(op) for op in ops] if ops else [op for op in every_sayable() if _is_known(op)]
    return {bridge_of(op).target: _translation(op, bridge_of(op).plan) for op in found}


def _is_known(op: OpOverload) -> bool:
    """Tell whether PyTorch takes an operator; a graph of its own has no other."""
    try:
        bridge_of(op)
    except PolyopError:
        return False
    return True


def _translation(op: OpOverload, plan: Translation) -> Callable[..., Any]:
    """Make the function that adds an operator's node to a model."""
    facts, add = facts_of(op), _adder(op)

    def translate(*args: Any, **named: Any) -> Any:
        inputs: list[Value] = []
        arguments = [
            _argument(inputs, place, value)
            for place, value in zip(plan.places, filled(plan, args, named), strict=True)
        ]
        return add(*inputs, **{CALL: to_text(arguments)}, **facts)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    translate.__name__ = op_type(op)
    translate.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(place.name, kind) for place in plan.places]
    )
    return translate


def _adder(op: OpOverload) -> Callable[..., Any]:
    words = onnx.defs.OpSchema.AttrType.STRING
    schema = onnx.defs.OpSchema(
        op_type(op),
        op.namespace,
        1,
        inputs=[_Form("inputs", "T", param_option=_FormOption.Variadic, is_homogeneous=False,
                      min_arity=0)],
        outputs=[_Form(f"result_{i}", "R") for i in range(len(op._schema.returns))],
        type_constraints=[("T", _TYPES, ""), ("R", _TYPES, "")],
        attributes=[onnx.defs.OpSchema.Attribute(name, words, "", required=True)
                    for name in (CALL, *facts_of(op))],
    )  # fmt: skip
    opset = onnxscript_values.Opset(op.namespace, 1)
    made: Callable[..., Any] = onnxscript_values.Op(opset, op_type(op), schema)
    return made


def _argument(inputs: list[Value], place: Place, value: Any) -> Any:
    """Give an argument as it is written, and add what is computed to the inputs."""
    if isinstance(value, Value):
        inputs.append(value)
        return Input(len(inputs) - 1)
    if isinstance(value, list | tuple):
        return [_argument(inputs, place, item) for item in value]
    if isinstance(value, ir.DataType):
        return ELEMENTS[value.value]
    return value


# -- writes -----------------------------------------------------------------------------------


def without_writes(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Give a program in which authors' operators write nothing: functional twins stand for them.

    Args:
        program: of `torch.export.export`; it stays as it is.

    Returns:
        A program for `torch.onnx.export`, which gives the same results.

    Raises:
        UsageTypeError: it is no program of PyTorch.
    """
    if not isinstance(program, torch.export.ExportedProgram):
        raise UsageTypeError(
            "a program of PyTorch is needed",
            declared="torch.export.ExportedProgram",
            seen=type(program).__name__,
            fix="give what torch.export.export gives",
        )
    made = deepcopy(program)
    known = {b.target: b.op for b in bridges() if b.op._schema.is_mutable and not b.op.is_builtin}
    for node in list(made.graph.nodes):
        op = known.get(node.target)
        if op is not None:
            _rewrite(made, node, op)
    made.graph.lint()
    made.graph_module.recompile()
    return made


def _rewrite(program: torch.export.ExportedProgram, node: torch.fx.Node, op: OpOverload) -> None:
    """Put the call of the twin, and a copy into each written argument, in the place of a call."""
    graph, plan = program.graph, bridge_of(op).plan
    given = filled(plan, node.args, node.kwargs)
    written = [v for place, v in zip(plan.places, given, strict=True) if place.written]
    count = len(plan.results) + len(written)

    def call(target: Any, *args: Any) -> torch.fx.Node:
        made: torch.fx.Node = graph.call_function(target, args)
        made.meta = {k: v for k, v in node.meta.items() if k in _KEPT}
        return made

    def copy(old: Any, new: Any) -> None:
        if isinstance(old, list | tuple):
            for i, item in enumerate(old):
                copy(item, call(operator.getitem, new, i))
        elif old is not None:
            call(torch.ops.aten.copy_.default, old, new)

    with graph.inserting_before(node):
        twin = call(bridge_of(written_out(op)).target, *given)
        parts = [twin] if count == 1 else [call(operator.getitem, twin, i) for i in range(count)]
        for old, new in zip(written, parts[len(plan.results) :], strict=True):
            copy(old, new)
    _replace(program, node, parts[: len(plan.results)])


#: What a new node knows of the place in the author's program that it stands for.
_KEPT = ("nn_module_stack", "source_fn_stack", "stack_trace", "torch_fn")


def _replace(
    program: torch.export.ExportedProgram, node: torch.fx.Node, parts: Sequence[torch.fx.Node]
) -> None:
    """Let results of a call stand for those of another."""
    pairs = [(node, parts[0])] if len(parts) == 1 else []
    pairs += [(user, parts[user.args[1]]) for user in node.users if len(parts) > 1]  # type: ignore[index]
    for old, new in pairs:
        old.replace_all_uses_with(new)
        program.graph_signature.replace_all_uses(old.name, new.name)
    for old in dict.fromkeys([*(old for old, _ in pairs), node]):
        program.graph.erase_node(old)
