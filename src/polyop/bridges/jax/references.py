"""Writes: into references of JAX, whose arrays are replaced; plain arrays are never written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop import tree
from polyop.bridges.jax.frames import is_foreign
from polyop.dispatch.body import result_forms
from polyop.dispatch.operator import OpOverload
from polyop.errors import ArgumentError
from polyop.tensor.foreign import is_reference


def write_references(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call the functional twin, and put the new values into the references that are written.

    Raises:
        ArgumentError: a plain array is to be written, or a reference is not.
    """
    written = [i for i, a in enumerate(op._schema.arguments) if a.is_write]
    former = [x for i in written for x in tree.leaves(values[i]) if x is not None]
    _check(op, values, [x for x in former if is_reference(x)])
    args, named = _call_of(op, values)
    made = op.functional.entry(*args, **named)
    results = list(made) if isinstance(made, (list, tuple)) else [made]
    fresh = len(op.functional._schema.returns) - len(written)
    for reference, new in zip(former, tree.leaves(results[fresh:]), strict=True):
        if is_reference(reference):  # a record has numbers beside them
            reference[...] = new
    rest = iter(results[:fresh])
    forms = result_forms(op._schema)
    found = [values[i] if kind == "argument" else next(rest) for kind, i in forms]
    return found[0] if len(found) == 1 else tuple(found) if found else None


def _call_of(op: OpOverload, values: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Give a call with the references' values."""
    read = [tree.map_leaves(lambda x: x[...] if is_reference(x) else x, v) for v in values]
    n = len(op._schema.positional)
    names = [a.name for a in op._schema.keyword_only]
    return read[:n], dict(zip(names, read[n:], strict=True))


def _check(op: OpOverload, values: Sequence[Any], targets: Sequence[Any]) -> None:
    refuse_write(op, values)
    if len({id(x) for x in targets}) < len(targets):
        raise ArgumentError(
            f"{op.name()} would write one reference in two places",
            op=op._schema,
            source=op.source,
            fix="give each argument that is written a reference of its own: jax.new_ref(x)",
        )
    for argument, value in zip(op._schema.arguments, values, strict=True):
        if not argument.is_write and any(map(is_reference, tree.leaves(value))):
            raise ArgumentError(
                f"{op.name()} only reads its argument {argument.name!r}, which is a reference",
                op=op._schema,
                argument=argument.name,
                seen=type(tree.leaves(value)[0]).__name__,
                source=op.source,
                fix=f"give its value: {argument.name}[...]",
            )


def refuse_write(op: OpOverload, values: Sequence[Any]) -> None:
    """Refuse to write an array.

    Raises:
        ArgumentError: a written argument is one, and no reference.
    """
    for argument, value in zip(op._schema.arguments, values, strict=True):
        leaves = tree.leaves(value)
        if argument.is_write and any(is_foreign(x) and not is_reference(x) for x in leaves):
            raise ArgumentError(
                f"{op.name()} writes its argument {argument.name!r}, and arrays of JAX are never "
                "written",
                op=op._schema,
                argument=argument.name,
                seen=type(leaves[0]).__name__,
                source=op.source,
                fix=f"call its functional twin, {op.functional.name()}, which returns the new "
                "value (op.functional); or give a reference, jax.new_ref(x); or wrap the array: "
                "t = polyop.from_array(x); after the call polyop.to_array(t) is the new array",
            )
