"""Programs as JSON: values, metas, expressions, nodes. The way out.

Everything is plain data: `decode.py` looks names up in tables of what is
registered, and runs nothing of the file.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

import numpy as np

from polyop import tree
from polyop.devices import Device
from polyop.dispatch.below import Below, whole_of
from polyop.dispatch.bits import GRAD
from polyop.dispatch.operator import OperatorBase, OpOverload
from polyop.errors import ProgramFileError
from polyop.export.classes import OWN_ENUMS, class_path, object_form
from polyop.export.derived import module_of
from polyop.export.functions import (
    call_custom_autograd_function,
    call_loaded_autograd_function,
)
from polyop.export.lowered import LoweredModule
from polyop.export.objects import assert_answer, assert_state, inner_object
from polyop.export.program import Program
from polyop.export.wrapper_forms import wrapper_form
from polyop.export.wrappers import Given, Wrapped
from polyop.graph import GraphModule, Node
from polyop.graph.node import GET_ATTR, PLACEHOLDER
from polyop.layers.trace.sizes import FUNCTIONS, assert_holds, sym_size
from polyop.schema.classes import name_of_class
from polyop.schema.opaque import is_reference
from polyop.symbolic import SymBool, SymFloat, SymInt
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor

#: Functions in graphs that are no operators, by the name that files have for them.
PLAIN_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **FUNCTIONS, "sym_size": sym_size, "assert": assert_holds, "getitem": operator.getitem,
    "sub": operator.sub, "neg": operator.neg, "assert_answer": assert_answer,
    "assert_state": assert_state, "inner_object": inner_object, "record": tree.build_record,
    "field": tree.field_of,
}  # fmt: skip
_NAMES = {fn: name for name, fn in PLAIN_FUNCTIONS.items()}
_PLAIN = (bool, int, str, type(None))


class Encoder:
    """Turns programs into JSON, and collects the bytes that stand beside it.

    Attributes:
        arrays: raw bytes, by number.
        operators: what the program needs, by name.
        objects: the forms of its opaque references, each behind those that it holds.
    """

    def __init__(self) -> None:
        self.arrays: list[bytes] = []
        self.operators: dict[str, dict[str, Any]] = {}
        self.objects: list[Any] = []
        self._tensors: dict[int, tuple[Tensor, Any]] = {}
        self._references: dict[int, tuple[Any, int | None]] = {}

    # -- programs -------------------------------------------------------------

    def program(self, program: Program) -> dict[str, Any]:
        """Encode a program."""
        env = program.mode.shape_env
        assert env is not None
        signature = program.signature
        inside = tuple_of_indices(program.in_spec), tuple_of_indices(program.out_spec)
        return {
            "symbols": [list(dim) for dim in program.dims.values()],
            "unbacked": [
                [name, *map(_end, env._declared(name))] for name in env.origins
            ],
            "constraints": [
                [rebuilt(guard.condition), f"{guard.message}" or _place(guard.place)]
                for guard in program.constraints
            ],
            "arguments": self.value(inside[0]),
            "results": self.value(inside[1]),
            "names": list(program.names),
            "by_key": program.by_key,
            "inputs": [
                [s.path, s.kind, self.value(s.value), s.requires_grad, *s.asked]
                for s in signature.inputs
            ],
            "outputs": [[s.kind, self.value(s.value)] for s in signature.outputs],
            "written": list(signature.written),
            "graph": self.module(program.graph_module),
        }  # fmt: skip

    def module(self, module: GraphModule) -> dict[str, Any]:
        """Encode a graph and the attributes that it reads."""
        numbers: dict[Node, int] = {}
        nodes = []
        for node in module.graph.nodes:
            nodes.append(self.node(node, numbers))
            numbers[node] = len(numbers)
        names = dict.fromkeys(n.target for n in module.graph.nodes if n.op == GET_ATTR)
        return {
            "nodes": nodes,
            "attributes": {name: self.attribute(name, module.get_attr(name)) for name in names},
        }

    def node(self, node: Node, numbers: dict[Node, int]) -> dict[str, Any]:
        """Encode a node; its inputs are numbers of earlier ones."""
        value = partial(self.value, numbers=numbers)
        found: dict[str, Any] = {"op": node.op, "name": node.name}
        if node.op in (GET_ATTR, PLACEHOLDER):
            found["target"] = node.target
        elif callable(node.target):
            found["target"] = self.target(node.target)
        else:
            found["target"] = str(node.target)
        if node.args:
            found["args"] = [value(arg) for arg in node.args]
        if node.kwargs:
            found["kwargs"] = {name: value(arg) for name, arg in node.kwargs.items()}
        val = described(node.val)
        if val is not None:
            found["val"] = val
        return found

    def target(self, target: Any) -> str:
        """Give the name of what a node calls, and note an operator.

        Raises:
            ProgramFileError: nothing in a file can stand for it.
        """
        if isinstance(target, OpOverload):
            return self.operator(target)
        if target is call_loaded_autograd_function:
            target = call_custom_autograd_function
        if isinstance(target, OperatorBase):
            return f"higher_order::{target.name()}"
        try:
            return f"function::{_NAMES[target]}"
        except (KeyError, TypeError):
            raise ProgramFileError(
                "the program calls a function that is no operator, which no file can hold",
                seen=repr(target),
                fix="make an operator of it: polyop.custom_op",
            ) from None

    def operator(self, op: OpOverload) -> str:
        """Note an operator with its schema, and the module that defines it; give its name."""
        schema = whole_of(op)._schema
        name = schema.qualified_name
        if name not in self.operators:
            self.operators[name] = {"schema": str(schema), "module": module_of(name)}
        return f"below::{op.floor}::{name}" if isinstance(op, Below) else name

    # -- attributes -----------------------------------------------------------

    def attribute(self, name: str, value: Any) -> Any:
        """Encode what a graph reads from its module."""
        if isinstance(value, Tensor):
            return self.tensor(name, value)
        if isinstance(value, GraphModule):
            return {"graph": self.module(value)}
        if isinstance(value, LoweredModule):
            return {
                "lowered": {
                    "backend": value.backend_id,
                    "payload": self.bytes(value.payload),
                    "specs": [[s.key, self.value(s.value)] for s in value.compile_specs],
                    "program": None
                    if value.original_module is None
                    else self.program(value.original_module),
                }
            }
        return {"value": self.value(value)}

    def tensor(self, name: str, tensor: Tensor) -> Any:
        """Encode a tensor; its elements stand beside the JSON."""
        array = tensor.payload
        if array.__class__ is not np.ndarray or array.dtype.hasobject:
            raise ProgramFileError(
                f"the constant {name} has no data that a file can hold",
                seen=type(array).__name__,
                fix="export with tensors on the device cpu",
            )
        if id(tensor) not in self._tensors:
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            # The tensor is kept, so that no other one gets its id.
            self._tensors[id(tensor)] = (
                tensor,
                {
                    "dtype": array.dtype.name,
                    "shape": list(array.shape),
                    "data": self.bytes(np.ascontiguousarray(little).tobytes()),
                    "requires_grad": bool(tensor.keys & GRAD),
                },
            )
        return {"tensor": self._tensors[id(tensor)][1]}

    def bytes(self, data: bytes) -> int:
        """Put bytes beside the JSON, and give their number."""
        self.arrays.append(bytes(data))
        return len(self.arrays) - 1

    # -- values ---------------------------------------------------------------

    def value(self, value: Any, numbers: dict[Node, int] | None = None) -> Any:
        """Encode an argument.

        Raises:
            ProgramFileError: it is an object without a flat form (S215).
        """
        if isinstance(value, Node) and numbers is not None:
            return {"node": numbers[value]}
        if type(value) in _PLAIN:
            return value
        if isinstance(value, (float, complex)):
            return _number(value)
        inner = partial(self.value, numbers=numbers)
        if type(value) in (list, tuple):
            items = [inner(v) for v in value]
            return items if type(value) is list else {"tuple": items}
        if type(value) is dict:
            return {"dict": [[inner(k), inner(v)] for k, v in value.items()]}
        if isinstance(value, slice):
            return {"slice": [inner(v) for v in (value.start, value.stop, value.step)]}
        return self.object(value, inner)

    def object(self, value: Any, inner: Callable[[Any], Any]) -> Any:
        """Encode what is neither a number nor a container of Python."""
        if isinstance(value, np.dtype):
            return {"dtype": value.name}
        if isinstance(value, Device):
            return {"device": str(value)}
        if isinstance(value, bytes):
            return {"bytes": self.bytes(value)}
        if isinstance(value, Tensor):
            return self.tensor("of an object", value)
        if value is Ellipsis:
            return {"ellipsis": True}
        if isinstance(value, OpOverload):
            return {"operator": self.operator(value)}
        if isinstance(value, (Wrapped, Given)):
            return wrapper_form(value, inner)
        if isinstance(value, type) and hasattr(value, "__dataclass_fields__"):
            return {"class": class_path(value)}
        if isinstance(value, Enum):
            return {"enum": _enum_name(type(value)), "member": value.name}
        fields = getattr(value, "_fields", None)
        if isinstance(value, tuple) and fields is not None:
            return {"record": class_path(type(value)), "fields": [inner(v) for v in value]}
        return self.opaque(value, inner)

    def opaque(self, value: Any, inner: Callable[[Any], Any]) -> Any:
        """Encode a record, or an object by its class name and flat form."""
        if is_reference(value):
            return {"reference": self.reference(value)}
        form = object_form(value, inner)
        if form is not None:
            return form
        name = name_of_class(type(value))
        fields = getattr(type(value), "__dataclass_fields__", None)
        if fields is not None and name is None:
            items = [inner(getattr(value, field)) for field in fields]
            return {"record": class_path(type(value)), "fields": items}
        raise _formless(value)

    def reference(self, value: Any) -> int:
        """Encode an opaque reference once, and give its number.

        Raises:
            ProgramFileError: it has no flat form, or holds itself.
        """
        if id(value) not in self._references:
            self._references[id(value)] = value, None
            form = object_form(value, self.value)
            if form is None:  # a subclass, which its reader would not find
                raise _formless(value)
            self._references[id(value)] = value, len(self.objects)
            self.objects.append(form)
        number = self._references[id(value)][1]
        if number is None:
            raise ProgramFileError(
                "the program holds an object whose flat form holds the object itself",
                seen=f"{value!r:.80}",
                fix="let __obj_flatten__ leave it out, and __obj_unflatten__ put it in",
            )
        return number


def _formless(value: Any) -> ProgramFileError:
    return ProgramFileError(
        f"the program holds an object that no file can hold: {type(value).__name__}",
        seen=f"{value!r:.80}",
        fix="give its class a method __obj_flatten__ and a classmethod __obj_unflatten__, "
        "and register it: register_opaque_type",
    )


def tuple_of_indices(spec: Any) -> Any:
    """Give a structure with the number of each leaf in its place."""
    return tree.unflatten(spec, range(spec.num_leaves))


def _enum_name(cls: type[Enum]) -> str:
    own = next((name for name, enum in OWN_ENUMS.items() if enum is cls), None)
    return own or str(name_of_class(cls))


def _number(value: float | complex) -> Any:
    if isinstance(value, complex):
        return {"complex": [_number(value.real), _number(value.imag)]}
    return value if math.isfinite(value) else {"float": repr(value)}


def _end(bound: float | int) -> int | None:
    return bound if isinstance(bound, int) else None


def _place(place: Any) -> str:
    return f"{str(place.file).rpartition('/')[2]}:{place.line}"


# -- sizes --------------------------------------------------------------------


def described(val: Any) -> Any:
    """Encode what a graph knows of a value."""
    if isinstance(val, Meta):
        strides = None if val.is_contiguous else [size(n) for n in val.strides]
        facts = {"dtype": val.dtype.name, "shape": [size(n) for n in val.shape]}
        device = {} if str(val.device) == "cpu" else {"device": str(val.device)}
        return facts | device | ({} if strides is None else {"strides": strides})
    if isinstance(val, (list, tuple)):
        return [described(v) for v in val]
    if isinstance(val, (SymInt, SymBool, SymFloat)):
        return {"size": size(val)}
    return None


def size(value: Any) -> Any:
    """Encode a size: an int, a symbol's name, or an operation and its operands."""
    if isinstance(value, SymBool):
        return rebuilt(value.condition)
    return rebuilt(value.expr) if isinstance(value, (SymInt, SymFloat)) else value


def rebuilt(part: Any) -> Any:
    """Encode an expression or a condition."""
    return part.rebuild(str, lambda n: n, lambda op, *args: [op, *args])
