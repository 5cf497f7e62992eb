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
from polyop.dispatch.keys import AUTOCAST_KEYS, DispatchKey
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


class same_autocast(entered):
    """Enter the autocast that was there when this was made."""

    __slots__ = ("_dtypes", "_excluded")

    def __init__(self) -> None:
        self._excluded = word().exclude & AUTOCAST
        self._dtypes = word().autocast

    def word(self) -> Word:
        """Give the current word with that autocast."""
        now = word()
        return now.but(exclude=now.exclude - AUTOCAST | self._excluded, autocast=self._dtypes)


def autocast_dtypes(now: Word) -> dict[str, DType | None]:
    """Give the dtype of each device type for which autocast is on in a word."""
    return {kind: dtype for kind, dtype in now.autocast if not now.exclude.has(autocast_key(kind))}


def autocast_kernel(
    op: OpOverload, device: Device, key: DispatchKey, dtype: DType
) -> Callable[..., Any]:
    """Make the kernel that casts arguments and calls the operator with autocast excluded.

    What is written is not cast: the write would go to a copy.
    """
    excluded = DispatchKeySet([key])
    arguments = op._schema.arguments
    written = {a.name for a in arguments if a.is_write}

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

    def read(name: str, value: Any) -> Any:
        return value if name in written else tree.map_leaves(cast, value)

    def call(args: Any, kwargs: Any) -> Any:
        given = [read(a.name, value) for a, value in zip(arguments, args, strict=False)]
        return op.entry(*given, **{name: read(name, value) for name, value in kwargs.items()})

    return run


AUTOCAST = DispatchKeySet(AUTOCAST_KEYS)
DOUBLE = as_dtype("float64")
