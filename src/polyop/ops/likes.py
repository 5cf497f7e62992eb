"""Tensors like a given one: of its shape or dtype, on its device, and of its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import META, Device
from polyop.dispatch.bits import BATCHED, WRAPPED
from polyop.ops.define import ON_TENSORS, define
from polyop.ops.factories import BOOL, empty, full, of_ones, on_meta, ones, zeros
from polyop.ops.view_metas import refuse
from polyop.ops.views import behind
from polyop.tensor.meta import META_SPACE, Meta
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]
Array = Any


def _like(name: str, signature: str, kernel: Fn, sized: Fn) -> Fn:
    """Define an operator that makes a tensor like another, and the public way to call it.

    Args:
        name: of the operator.
        signature: of its static arguments, without dtype and device.
        kernel: `(shape, static arguments, dtype) -> array`.
        sized: makes the same of a size.
    """

    def on_arrays(x: Array, *args: Any) -> Array:
        *statics, dtype, device = args if len(args) > 1 else (*args, None, None)
        if device is not None and on_meta(device):
            return META_SPACE.meta(x.shape, dtype or x.dtype, None, META)
        return kernel(x.shape, *statics, dtype or x.dtype)

    def fake(x: Meta, *args: Any) -> Meta:
        *_, dtype, device = args
        if device is not None:
            _check_made_there(name, x, device)
        return x.space.meta(x.shape, dtype or x.dtype, None, device or x.device)

    entry: Fn = define(
        f"{name}(Tensor x{signature}, *, ScalarType? dtype=None, Device? device=None) -> Tensor",
        on_arrays,
        fake=fake,
        grad={},
        vmap=behind(lambda x, _, *args: entry(x, *args[:-2], dtype=args[-2], device=args[-1])),
    )

    def make(
        x: Any, *statics: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False
    ) -> Any:
        if device is not None and _is_apart(x, Device(device)):
            made = sized(list(x.shape), *statics, dtype=dtype or x.dtype, device=device)
        else:
            made = entry(x, *statics, dtype=dtype, device=device)
        return made.requires_grad_() if requires_grad else made

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"Make a tensor of the shape and dtype of another, as `{name[:-5]}` does."
    return make


def _is_apart(x: Any, device: Device) -> bool:
    """Tell whether a tensor on a device cannot be made where another one is, or in its kind."""
    if not isinstance(x, Tensor):
        return device is META  # no other library's array is without data for us
    return x.device is META and device is not META


def _check_made_there(name: str, x: Meta, device: Device) -> None:
    """Refuse to make data where none is: outside of fake modes a tensor on `meta` decides that."""
    if x.device is META and x.space.mode is None and device is not META:
        refuse(
            name,
            f"beside a tensor on the device meta nothing is made on the device {device}",
            argument="device",
            seen=device,
            fix=f"call polyop.{name[:-5]} with x.shape",
        )


zeros_like = _like("zeros_like", "", np.zeros, zeros)
ones_like = _like("ones_like", "", of_ones, ones)
empty_like = _like("empty_like", "", np.empty, empty)
_full_like = _like("full_like", ", Scalar fill_value", np.full, full)


def full_like(
    x: Any,
    /,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Make a tensor of one number, with the shape and dtype of another."""
    if isinstance(fill_value, Tensor):
        dtype, device = dtype or x.dtype, device or x.device
        made = beside(x, full(list(x.shape), fill_value, dtype=dtype, device=device))
        return made.requires_grad_() if requires_grad else made
    return _full_like(x, fill_value, dtype=dtype, device=device, requires_grad=requires_grad)


def new_full(x: Any, size: Sequence[Any], value: Any, dtype: Any = None, device: Any = None) -> Any:
    """Make a tensor of one number, with the dtype and device of another where none is given."""
    dtype = x.dtype if dtype is None else dtype
    made = full(size, value, dtype=dtype, device=x.device if device is None else device)
    return beside(x, made)


def beside(x: Any, made: Any) -> Any:
    """Give what is made for a tensor, once for each element if that is of a batch.

    A vmap may write it then, and each element has its own.
    """
    if not _is_of_batch(x):
        return made
    of_each = ON_TENSORS["broadcast_to"](ON_TENSORS["sum"](zeros_like(x)), list(made.shape))
    yes = ones_like(of_each, dtype=BOOL, device=made.device)
    return ON_TENSORS["where"](yes, made, made)


def _is_of_batch(x: Any) -> bool:
    """Tell whether one of the transforms around a tensor is a vmap."""
    while x.keys & WRAPPED:
        if x.keys & BATCHED:
            return True
        found = x.payload.value
        x = found() if callable(found) else found
    return False
