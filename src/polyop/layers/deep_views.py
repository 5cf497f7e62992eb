"""Views of tensors inside a list, a dictionary or a record: their place in it is not declared.

A schema says which argument a result is a view of, and of a container that is not enough to
follow a write from one to the other. Plain calls need no more; transforms refuse the operator.
"""

from __future__ import annotations

from typing import Any, NoReturn

from polyop.dispatch.bits import TRACE
from polyop.dispatch.body import result_forms
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.resolve import Way
from polyop.dispatch.write import shape_of
from polyop.errors import MutationError


class DeepViewsLayer:
    """Refuses what transforms cannot follow."""

    def handler(self, way: Way) -> Handler | None:
        """Give a handler that refuses, if the operator gives views of what a container holds."""
        name = _container(way.op, given=bool(way.code & TRACE))
        if name is None:
            return None

        def refuse(*args: Any) -> NoReturn:
            _refuse(way.op, name)

        return refuse


def _container(op: OpOverload, *, given: bool) -> str | None:
    """Name a container that some result is a view into, or (`given`) is itself."""
    kinds = shape_of(op._schema).kinds
    followed = {"view", "views", "argument"} if given else {"view", "views"}
    for kind, position in result_forms(op._schema):
        if kind in followed and kinds[position] not in {"tensor", "tensor?"}:
            return op._schema.arguments[position].name
    return None


def _refuse(op: OpOverload, name: str) -> NoReturn:
    raise MutationError(
        f"{op.name()} gives a view of a tensor inside {name!r}, which transforms do not follow",
        op=op._schema,
        argument=name,
        declared="views of arguments that are tensors",
        seen=f"a view of what {name!r} holds",
        source=op.source,
        fix="take the tensor as an argument of its own, or give a copy and declare no view",
    )
