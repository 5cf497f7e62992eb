"""Which of three routes a built-in operator goes over a library.

NOTE [Three routes]
A built-in operator has, for each library, one of three routes, and `payload_route` says which: its
native kernel, over the library's own namespace; else its decomposition into operators that have
one; else the exchange: its NumPy kernel, on data that is converted there and back (a task, for
arrays that are recipes). The exchange also answers what a native kernel finds that it cannot do as
NumPy does. What has no data to exchange, a tracer or a fake, is refused by name.

The operator's fake rule runs first. It raises NumPy's errors before anything is done, and says of
what dtype and shape the result is; a native answer of another shape is none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from polyop.dispatch.bind import refuse_beyond_dtype
from polyop.dispatch.body import Form, result_forms
from polyop.dispatch.decompositions import get_decompositions
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import as_operator
from polyop.errors import UsageError
from polyop.layers.fake.compute import by_name
from polyop.layers.fake.handlers import plan_of
from polyop.ops.inplace import INPLACE_TWINS
from polyop.payloads import native_kernels
from polyop.payloads.libraries import LIBRARIES
from polyop.schema.tags import Tag

Fn = Callable[..., Any]


class Plan(NamedTuple):
    """How one built-in operator is computed.

    Attributes:
        op: the operator.
        native: its kernel over a namespace, or None.
        parts: its decomposition, or None.
        kernel: its NumPy kernel.
        describe: its fake rule, or None if it has none, or sizes depend on data.
        twin: of an operator that writes: the plan of the one that does not.
        forms: what its results are.
        known: what the fake rule has said, by the facts of the arguments.
    """

    op: OpOverload
    native: Fn | None
    parts: Fn | None
    kernel: Fn
    describe: Fn | None
    twin: Plan | None
    forms: tuple[Form, ...]
    known: dict[Any, Any]


def plan(op: OpOverload) -> Plan:
    """Give the plan of a built-in operator, made anew after each change."""
    found: Plan = op.note("payloads", _make_plan)
    return found


def _make_plan(op: OpOverload) -> Plan:
    kernel = op.places.top(DispatchKey.CompositeExplicitAutograd)
    assert kernel is not None and kernel.fn is not None
    fake = None if Tag.dynamic_output_shape in op.tags else plan_of(op)
    parts = get_decompositions([op]).get(op)
    native = native_kernels.native_kernel(op.name())
    made = None if parts is None else by_name(op, parts)
    describe = None if fake is None else fake.run
    forms = result_forms(op._schema)
    by_numpy = partial(_in_range, op, kernel.fn) if _takes_numbers(op) else kernel.fn
    return Plan(op, native, made, by_numpy, describe, _twin(op), forms, {})


def _takes_numbers(op: OpOverload) -> bool:
    return any(str(a.type).startswith("Scalar") for a in op._schema.arguments)


def _in_range(op: OpOverload, kernel: Fn, *args: Any) -> Any:
    """Call a kernel; a number that its tensor's dtype does not hold is told by name."""
    try:
        return kernel(*args)
    except OverflowError:
        refuse_beyond_dtype(op, args)
        raise


def _twin(op: OpOverload) -> Plan | None:
    twin = INPLACE_TWINS.get(op.name())
    if twin is None and op.name() == "core::index_put_":
        twin = as_operator("core::index_put")
    return None if twin is None else plan(twin)


def payload_route(op: Any, library: str) -> str:
    """Say how a built-in operator is computed over arrays of a library.

    Args:
        op: the operator, in any form.
        library: its name: `"torch"`, `"jax"`, `"dask"`, `"cupy"`, or of another of the Array API.

    Returns:
        `"native"`, `"decomposed"`, `"exchange"` (NumPy's kernel, on converted data), or `"task"`
        (the same, when the recipe is computed).

    Raises:
        UsageError: it is no built-in operator.
    """
    found = as_operator(op)
    if not found.is_builtin:
        raise UsageError(
            f"{found.name()} is no built-in operator: its kernels say where it runs",
            op=found._schema,
        )
    known = plan(found).twin or plan(found)
    if known.native is not None:
        return "native"
    if known.parts is not None:
        return "decomposed"
    lazy = any(entry.lazy for _, entry in LIBRARIES.values() if entry.name == library)
    return "task" if lazy and known.describe is not None else "exchange"
