"""Views of tensors inside a list, a dictionary or a record: their place in it is not declared.

A schema says which argument a result is a view of, and of a container that is not enough to
follow a write from one to the other; nor is it where the schema names several arguments. Plain
calls need no more. Transforms and traces let such a view be read, and refuse each write to it and
to what the container holds, so they take only tensors there that end with them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from polyop.dispatch.bits import FAKE, TRACE, WRAPPED
from polyop.dispatch.body import carriers, result_forms
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.resolve import Way
from polyop.dispatch.results import tensors_in
from polyop.dispatch.write import shape_of
from polyop.errors import MutationError
from polyop.tensor.storage import seal


class DeepViewsLayer:
    """Refuses the writes that transforms cannot follow."""

    def handler(self, way: Way) -> Handler | None:
        """Give a handler that seals, if the operator gives views of what a container holds.

        A container that is given back has no name in a trace, and is refused there.
        """
        given = _containers(way.op, {"argument"}) if way.code & TRACE else []
        given += _several(way.op, given=True)
        found = [*given, *_containers(way.op, {"view", "views"}), *_several(way.op, given=False)]
        if not found:
            return None
        below = None if given else way.handler()

        def run(*args: Any) -> Any:
            held = [t for i in found for t in tensors_in(args[i])]
            if below is None or not all(t.keys & OURS for t in held):
                _refuse(way.op, found)
            out = below(*args)
            for t in (*held, *tensors_in(out)):
                _seal(t, way.op)
            return out

        return run


#: Tensors that end with the transform, the trace or the mode that made them.
OURS = WRAPPED | FAKE


def _containers(op: OpOverload, followed: Collection[str]) -> list[int]:
    """Give the places of containers that some result is a view into, or is itself."""
    kinds = shape_of(op._schema).kinds
    return [
        position
        for kind, position in result_forms(op._schema)
        if kind in followed and kinds[position] not in {"tensor", "tensor?"}
    ]


def _several(op: OpOverload, *, given: bool) -> list[int]:
    """Give the places of arguments of which a result is a view, or is one (`given`)."""
    forms, returns = result_forms(op._schema), op._schema.returns
    return [
        position
        for i, (kind, _) in enumerate(forms)
        if kind == "either" and returns[i].is_write == given
        for position in carriers(op._schema, i)
    ]


def is_followed(op: OpOverload, number: int) -> bool:
    """Tell whether fakes and transforms know what a result is a view of."""
    kind, position = result_forms(op._schema)[number]
    return kind != "either" and (
        kind not in {"view", "views"}
        or shape_of(op._schema).kinds[position] in {"tensor", "tensor?"}
    )


def _seal(tensor: Any, op: OpOverload) -> None:
    """Refuse writes to a tensor, and to what each transform around has of it."""
    while tensor.keys & WRAPPED:
        seal(tensor, op)
        value = tensor.payload.value
        tensor = value() if callable(value) else value
    if tensor.keys & FAKE:
        seal(tensor, op)


def _refuse(op: OpOverload, found: Sequence[int]) -> NoReturn:
    name = op._schema.arguments[found[0]].name
    several = len(found) > 1 and shape_of(op._schema).kinds[found[0]] in {"tensor", "tensor?"}
    what, declared, seen, fix = (
        (
            "one of several arguments",
            "for each result a set that one argument carries",
            "a set that several carry",
            "write an operator for each argument, or give a copy and declare no alias",
        )
        if several
        else (
            f"a view of a tensor inside {name!r}",
            "views of arguments that are tensors",
            f"a view of what {name!r} holds",
            "take the tensor as an argument of its own, or give a copy and declare no view",
        )
    )
    raise MutationError(
        f"{op.name()} gives {what}, which transforms do not follow",
        op=op._schema,
        argument=name,
        declared=declared,
        seen=seen,
        source=op.source,
        fix=fix,
    )
