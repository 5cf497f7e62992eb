"""Methods of `Tensor` that give it in another dtype, on another device, or its relatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyop.devices import Device, as_dtype
from polyop.dispatch.bits import WRAPPED
from polyop.errors import UsageTypeError
from polyop.ops import factories
from polyop.ops.creation import new_elsewhere, on_device, tensor
from polyop.ops.define import ON_TENSORS
from polyop.ops.door import takes
from polyop.ops.likes import beside
from polyop.ops.method_words import attach
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


def to(
    self: Any,
    *args: Any,
    dtype: Any = None,
    device: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Any:
    """Convert to a dtype, a device, or those of another tensor; itself if nothing changes.

    By position, as in PyTorch: a tensor, or a dtype, or a device and a dtype; then whether not to
    wait, which is of no consequence, and whether to copy in any case.

    Raises:
        UsageTypeError: a memory format, or values that have no place.
    """
    if memory_format is not None:
        raise UsageTypeError(
            "to() takes no memory format", seen=memory_format, fix="use .contiguous() to lay it out"
        )
    head = [given for given in args if given.__class__ is not bool]
    flags = args[len(head) :]
    if len(head) > 2 or len(flags) > 2 or any(flag.__class__ is not bool for flag in flags):
        raise UsageTypeError(
            "to() got arguments that have no place",
            declared="to(dtype, non_blocking, copy), to(device, dtype, non_blocking, copy) "
            "or to(other, non_blocking, copy)",
            seen=args,
        )
    for given in head:
        if isinstance(given, Tensor):
            dtype, device = given.dtype, given.device
        elif isinstance(given, Device) or (isinstance(given, str) and _is_device(given)):
            device = given
        elif given is not None:
            dtype = given
    made = self if device is None else on_device(self, device)
    if dtype is not None and as_dtype(dtype) != made.dtype:
        return ON_TENSORS["astype"](made, as_dtype(dtype))
    return made.clone() if made is self and (copy or flags[1:] == (True,)) else made


def _is_device(name: str) -> bool:
    return name.partition(":")[0] in {"cpu", "cuda", "xla", "mps", "xpu", "privateuseone", "meta"}


def _converter(dtype: Any) -> Fn:
    def method(self: Any) -> Any:
        return to(self, dtype)

    method.__doc__ = f"Convert to {dtype}."
    return method


def astype(self: Any, dtype: Any, copy: bool = True) -> Any:
    """Convert to a dtype; itself if nothing changes and no copy is asked for."""
    return to(self, dtype, copy=copy)


def _type(self: Any, dtype: Any) -> Any:
    """Convert to a dtype."""
    return to(self, as_dtype(dtype))


@takes("Tensor other")
def _type_as(self: Any, other: Any) -> Any:
    """Convert to the dtype of another tensor."""
    return to(self, other.dtype)


def _cpu(self: Any) -> Any:
    """Give the tensor in the host's memory."""
    return on_device(self, "cpu")


def _cuda(self: Any, device: Any = None) -> Any:
    """Give the tensor on a GPU: the first, or that of a number."""
    return on_device(self, f"cuda:{device}" if isinstance(device, int) else device or "cuda")


def _new(name: str, make: Fn, value: float | None) -> Fn:
    def method(self: Any, *size: Any, dtype: Any = None, device: Any = None, **rest: Any) -> Any:
        if "size" in rest:
            size = (rest.pop("size"),)
        if device is None and not rest and hasattr(self.payload, "library"):
            made = new_elsewhere(self, size, value, as_dtype(dtype or self.dtype))
            if made is not None:
                return made
        device = self.device if device is None else device
        if not self.keys & WRAPPED:
            return make(*size, dtype=dtype or self.dtype, device=device, **rest)
        grad = rest.pop("requires_grad", False)
        made = make(*size, dtype=dtype or self.dtype, device=device, **rest)
        made = beside(self, made)
        return made.requires_grad_() if grad else made

    method.__name__, method.__doc__ = f"new_{name}", _NEW.format(name)
    return method


_NEW = "Make what `{}` makes of a size, with this tensor's dtype and device where none is given."


def _new_tensor(self: Any, data: Any, *, dtype: Any = None, **rest: Any) -> Any:
    """Make a tensor of some data, with this one's dtype."""
    return tensor(data, dtype=dtype or self.dtype, **rest)


def _to_device(self: Any, device: Any, /, *, stream: Any = None) -> Any:
    """Give the tensor on a device; there are no streams here."""
    return on_device(self, device)


def _attach_conversions() -> None:
    for name in ("float", "double", "half", "long", "int", "short", "bool"):
        attach(name, _converter(name))
    found = {
        "to": to, "to_device": _to_device, "cpu": _cpu, "cuda": _cuda, "type": _type,
        "type_as": _type_as, "astype": astype, "new_tensor": _new_tensor,
    }  # fmt: skip
    for name, method in found.items():
        attach(name, method)
    for name, value in (("empty", 0), ("zeros", 0), ("ones", 1), ("full", None)):
        attach(f"new_{name}", _new(name, getattr(factories, name), value))


_attach_conversions()
