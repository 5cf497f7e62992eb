"""The functional twin of an operator that writes: its results, then the new values (S174)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.body import Form, result_forms
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS, define, put
from polyop.dispatch.table import Kernel
from polyop.errors import UsageError
from polyop.ops.rounding import clone
from polyop.schema.model import MISSING, FunctionSchema
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor

#: Facts that are about the write, not about the values.
_OF_WRITES = {Tag.inplace, Tag.inplace_view, Tag.out, Tag.out_variant, Tag.pointwise, Tag.core}


def functional_twin(op: OpOverload) -> OpOverload:
    """Give the operator that copies what `op` writes, runs it, and returns the copies too.

    Its results are those of `op` that are not written arguments, then the new
    value of each written argument.

    Raises:
        UsageError: the operator writes nothing.
    """
    if not op._schema.is_mutable:
        raise UsageError(
            f"{op.name()} writes nothing, so it is its own functional twin",
            op=op._schema,
            source=op.source,
        )
    schema = twin_schema(op._schema)
    with LOCK:
        there = DEFINITIONS.get(schema.qualified_name)
        if there is not None and there.op._schema == schema:
            return there.op
        return _define(op, schema)


def twin_schema(schema: FunctionSchema) -> FunctionSchema:
    """Give the signature of the twin: nothing is written, new values are results."""
    kept = [schema.returns[i] for i in without(result_forms(schema))]
    new = [a._replace(name="", alias_info=None, default_value=MISSING, kwarg_only=False)
           for a in schema.written]  # fmt: skip
    name = schema.overload_name
    return schema.but(
        overload_name=f"{name}_functional" if name else "functional",
        arguments=tuple(a._replace(alias_info=None) for a in schema.arguments),
        returns=tuple(r._replace(alias_info=None) for r in [*kept, *new]),
    )


def without(forms: Sequence[Form]) -> list[int]:
    """Give the places of the results that are not arguments themselves."""
    return [i for i, (kind, _) in enumerate(forms) if kind != "argument"]


def _define(op: OpOverload, schema: FunctionSchema) -> OpOverload:
    owner = DEFINITIONS[op.name()].owners[0][0]
    tags = tuple(t for t in op.tags if t not in _OF_WRITES)
    twin = define(schema, tags, op.source, owner, replace=schema.qualified_name in DEFINITIONS)
    run = Kernel(_kernel(op), op.source, owner)
    put(twin.name(), DispatchKey.CompositeExplicitAutograd, run)
    put(twin.name(), "fake", run)
    twin.__dict__["twin_of"] = op
    return twin


def mutable_of(target: Any) -> OpOverload | None:
    """Give the operator whose functional twin something is, or None."""
    found: OpOverload | None = getattr(target, "__dict__", {}).get("twin_of")
    return found


def _kernel(op: OpOverload) -> Callable[..., Any]:
    arguments = op._schema.arguments
    names = [a.name for a in arguments]
    written = [i for i, a in enumerate(arguments) if a.is_write]
    n = len(op._schema.positional)
    forms = result_forms(op._schema)
    fresh = without(forms)
    # A view of what is written, or read, is memory of its own in a call that writes nothing.
    views = {i for i in fresh if forms[i][0] in {"view", "views", "either"}}
    several = len(op._schema.returns) > 1

    def run(*args: Any, **kwargs: Any) -> Any:
        values = [*args, *(kwargs[name] for name in names[n:])]
        for i in written:
            values[i] = tree.map_leaves(_copied, values[i])
        result = op.entry(*values[:n], **dict(zip(names[n:], values[n:], strict=True)))
        results = list(result) if several else [result]
        for i in views:
            results[i] = tree.map_leaves(_copied, results[i])
        done = (*(results[i] for i in fresh), *(values[i] for i in written))
        return done[0] if len(done) == 1 else done

    return run


def _copied(value: Any) -> Any:
    return clone(value) if isinstance(value, Tensor) else value
