"""Operators without tensors: their argument `device` says which kernel runs (S104)."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.keys import DispatchKey, key_for_device
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.resolve import DENSE
from polyop.dispatch.table import Kernel, Place
from polyop.schema.model import FunctionSchema
from polyop.schema.predicates import get_device_arg_index
from polyop.schema.types import leaf_kind


class _SelectBackend:
    """The kernel at BackendSelect of an operator without tensors: it goes where `device` says."""

    def __init__(self, op: OpOverload, position: int) -> None:
        self.op = op
        self.name = op._schema.arguments[position].name
        self.position = position

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        device = kwargs[self.name] if self.name in kwargs else args[self.position]
        key = DispatchKey.CPU if device is None else key_for_device(device)
        return self.op.redispatch(DispatchKeySet([key]), *args, **kwargs)


def device_position(schema: FunctionSchema) -> int | None:
    """Give the position of the argument `device`, where a call has no tensors that say it."""
    if any(leaf_kind(a.type) != "static" for a in schema.arguments):
        return None
    return get_device_arg_index(schema)


def select_backend(op: OpOverload, place: Place, kernel: Kernel) -> None:
    """Put a kernel at BackendSelect beside a device's kernel; it goes with that one's owner."""
    position = device_position(op._schema) if place in DENSE else None
    if position is None:
        return
    top = op.places.top(DispatchKey.BackendSelect)
    if top is None or isinstance(top.fn, _SelectBackend):
        selector = Kernel(_SelectBackend(op, position), kernel.source, kernel.owner)
        op.places.put(DispatchKey.BackendSelect, selector)
