"""Autocast: operators with a dtype for it get their floating arguments cast (S53, S94).

An operator takes part by `register_autocast`, which puts a kernel at the key
of the device's autocast. The key is excluded by default; `autocast` takes it
out of the exclude set, and the kernel puts it back for the call that it makes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyop import tree
from polyop.devices import Device, DType, as_dtype
from polyop.dispatch.context import Word, entered, run_under, word
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.rules import autocast_key
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor, is_floating


class autocast(entered):
    """Cast floating arguments of the operators that have a dtype for it, for a block.

    Args:
        device_type: the device whose tensors are cast.
        dtype: what `autocast_dtype` answers in the block.
        enabled: False turns autocast off for the block.

    Raises:
        UsageTypeError: the device type is no string.
        UsageError: a device type without autocast.
    """

    __slots__ = ("_dtype", "_enabled", "_key", "_type")

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True) -> None:
        self._key = DispatchKeySet([autocast_key(device_type)])
        self._type = Device(device_type).type
        self._dtype = None if dtype is None else as_dtype(dtype)
        self._enabled = enabled

    def word(self) -> Word:
        """Give the current word with the autocast key let in, or kept out."""
        now = word()
        exclude = now.exclude - self._key if self._enabled else now.exclude | self._key
        others = tuple(pair for pair in now.autocast if pair[0] != self._type)
        mine = ((self._type, self._dtype),) if self._enabled else ()
        return now.but(exclude=exclude, autocast=others + mine)


def is_autocast_enabled(device_type: str) -> bool:
    """Tell whether autocast is on for a device type."""
    return not word().exclude.has(autocast_key(device_type))


def autocast_dtype(device_type: str) -> DType | None:
    """Give the dtype that `autocast` was entered with, or None."""
    found: DType | None = dict(word().autocast).get(Device(device_type).type)
    return found


def autocast_kernel(
    op: OpOverload, device: Device, key: DispatchKey, dtype: DType
) -> Callable[..., Any]:
    """Make the kernel that casts arguments and calls the operator with autocast excluded."""
    excluded = DispatchKeySet([key])

    def cast(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.device.type != device.type:
            return value
        if not is_floating(value.dtype) or value.dtype in {dtype, DOUBLE}:
            return value
        return ON_TENSORS["astype"](value, dtype)

    def run(*args: Any, **kwargs: Any) -> Any:
        now = word()
        # Out first: neither the casts nor the operator meet this kernel again.
        below = now.but(exclude=now.exclude | excluded)
        return run_under(below, call, args, kwargs)

    def call(args: Any, kwargs: Any) -> Any:
        given, named = tree.map_leaves(cast, (args, kwargs))
        return op.entry(*given, **named)

    return run


DOUBLE = as_dtype("float64")
