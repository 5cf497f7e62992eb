"""The formula of one call: what a node of a graph computes, as steps on symbols."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from polyop.compile.fused.formulas import KINDS
from polyop.compile.fused.symbols import Step, Symbol, trace
from polyop.devices import CPU, DType
from polyop.dispatch.bits import NUMPY
from polyop.dispatch.entry import first_kernel
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.table import Kernel
from polyop.graph import Node
from polyop.graph.node import CALL_FUNCTION, inputs_of
from polyop.schema.model import MISSING
from polyop.schema.tags import Tag
from polyop.tensor.meta import Meta


class Formula(NamedTuple):
    """What a call computes.

    Attributes:
        inputs: the nodes that it reads, with a symbol for each.
        steps: the steps, in order.
        result: the symbol of the result.
    """

    inputs: dict[Node, Symbol]
    steps: list[Step]
    result: Symbol


def formula_of(node: Node) -> Formula | None:
    """Give the formula of a call; None if it has to stay what it is."""
    op, val = node.target, node.val
    if node.op != CALL_FUNCTION or not isinstance(op, OpOverload) or not is_known(val):
        return None
    if Tag.pointwise not in op.tags or not op.is_builtin or op.is_impure or op.is_view:
        return None
    inputs = inputs_of(node)
    kernel = kernel_of(op)
    if not inputs or kernel is None or not all(is_known(given.val) for given in inputs):
        return None
    steps: list[Step] = []
    symbols = {given: Symbol(dtype_of(given), steps) for given in inputs}
    args = _arguments(node, op, symbols)
    result = None if args is None or kernel.fn is None else trace(kernel.fn, args, {})
    if result is None or result.dtype != val.dtype:
        return None
    return Formula(symbols, steps, result)


def kernel_of(op: OpOverload) -> Kernel | None:
    """Give the kernel on bare arrays that a plain call of an operator runs."""
    kernel = first_kernel(op, NUMPY)
    return kernel if kernel is not None and kernel.payload else None


def is_known(val: Any) -> bool:
    """Tell whether a value is a tensor of a dtype that loops compute with."""
    return isinstance(val, Meta) and val.dtype in KINDS and val.device == CPU


def dtype_of(node: Node) -> DType:
    """Give the dtype of a tensor's node, as the object that NumPy's own arrays have."""
    found: DType = np.dtype(node.val.dtype.type)
    return found


def _arguments(node: Node, op: OpOverload, symbols: dict[Node, Symbol]) -> tuple[Any, ...] | None:
    """List the arguments by position, symbols for tensors; None where one is anything odd."""
    given = list(node.args)
    for argument in op._schema.arguments[len(given) :]:
        given.append(node.kwargs.get(argument.name, argument.default_value))
    values = [symbols[x] if isinstance(x, Node) else x for x in given]
    odd = any(isinstance(x, (tuple, list, dict, slice)) or x is MISSING for x in values)
    return None if odd else tuple(values)
