"""The tangents of operators that are linear: they act on the tangents themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.dispatch.bind import dispatch
from polyop.dispatch.operator import Handler, OpOverload
from polyop.layers.autograd.arrays import cast_tensor
from polyop.layers.autograd.text_tangents import Tangents, plus_into
from polyop.ops.define import ON_TENSORS
from polyop.schema.types import leaf_kind
from polyop.tensor.tensor import is_differentiable

#: What must be another argument where an operator acts on tangents: constants have none.
INSTEAD: dict[str, dict[int, Any]] = {"core::pad": {3: 0}}


class LinearTangents:
    """The rule of an operator that is linear in some of its arguments together."""

    def __init__(self, op: OpOverload, places: tuple[int, ...]) -> None:
        self.op = op
        self.places = places
        self.instead = INSTEAD.get(op.name(), {})
        kinds = [leaf_kind(op._schema.arguments[i].type) for i in places]
        #: The one tensor that the operator is linear in, if it is one.
        self.one = places[0] if kinds == ["tensor"] and not self.instead else None

    def __call__(self, values: Sequence[Any], tangents: Tangents) -> tuple[Any, Sequence[Any]]:
        """Run the operator on the values, and on the tangents."""
        return self._both(_through(self.op), values, tangents)

    def at_once(
        self, call: Handler, values: Sequence[Any], tangents: Tangents
    ) -> tuple[Any, Sequence[Any]]:
        """Do the same where all tensors are plain arrays, and nobody watches."""
        i = self.one
        if i is None or tangents[i] is None:
            return self._both(call, values, tangents)
        out = call(*values)
        dtype = out.payload.dtype
        if dtype.kind not in "fc" and not is_differentiable(dtype):  # a bfloat16 has its own kind
            return out, (None,)
        given = [*values]
        given[i] = tangents[i]
        d = call(*given)
        return out, (d if d.payload.dtype is dtype else cast_tensor(d, dtype),)

    def _both(
        self, call: Handler, values: Sequence[Any], tangents: Tangents
    ) -> tuple[Any, Sequence[Any]]:
        out = call(*values)
        dtype = out.payload.dtype
        if not is_differentiable(dtype) or all(tangents[i] is None for i in self.places):
            return out, [None]
        given = list(values)
        for i in self.places:
            given[i] = _filled(values[i], tangents[i])
        for i, value in self.instead.items():
            given[i] = value
        d = call(*given)
        return out, [d if d.payload.dtype is dtype else cast_tensor(d, dtype)]


class ViewTangents:
    """The rule of `view`, whose tangent may be laid out so that it has no such view."""

    def __init__(self, op: OpOverload) -> None:
        self.op = op

    def __call__(self, values: Sequence[Any], tangents: Tangents) -> tuple[Any, Sequence[Any]]:
        """Run the operator on the value, and give the tangent the shape."""
        return self.at_once(_through(self.op), values, tangents)

    def at_once(
        self, call: Handler, values: Sequence[Any], tangents: Tangents
    ) -> tuple[Any, Sequence[Any]]:
        """Do the same by a handler that serves the value."""
        out, tangent = call(*values), tangents[0]
        if tangent is None or not is_differentiable(out.dtype):
            return out, [None]
        return out, [cast_tensor(ON_TENSORS["reshape"](tangent, values[1]), out.dtype)]


def _through(op: OpOverload) -> Handler:
    return lambda *values: dispatch(op, values)


def _filled(value: Any, tangent: Any) -> Any:
    """Put zeros where there is no tangent."""
    if value.__class__ is list:
        return [_filled(v, t) for v, t in zip(value, tangent or [None] * len(value), strict=True)]
    return ON_TENSORS["zeros_like"](value) if tangent is None else tangent


class BilinearTangents:
    """The rule of an operator that is linear in each of its first two arguments."""

    def __init__(self, op: OpOverload) -> None:
        self.op = op

    def __call__(self, values: Sequence[Any], tangents: Tangents) -> tuple[Any, Sequence[Any]]:
        """Run the operator, and once more for each tangent."""
        return self.at_once(_through(self.op), values, tangents)

    def at_once(
        self, call: Handler, values: Sequence[Any], tangents: Tangents
    ) -> tuple[Any, Sequence[Any]]:
        """Do the same by a handler that serves all."""
        out = call(*values)
        if not is_differentiable(out.dtype):
            return out, [None]
        total = None
        for i in (0, 1):
            if tangents[i] is not None:
                given = [*values]
                given[i] = tangents[i]
                term = call(*given)
                total = term if total is None else plus_into(total, term)
        return out, [cast_tensor(total, out.dtype)]
