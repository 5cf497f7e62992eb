"""`to_device` copies a tensor to another device: inside a fake mode to any, else to `meta` alone.

A move is an operator, so traces record it, and gradients go the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polyop.devices import META, Device
from polyop.errors import UsageError
from polyop.ops.define import define
from polyop.ops.factories import on_meta
from polyop.ops.rounding import copied
from polyop.ops.shapes import pointwise_strides
from polyop.ops.views import behind
from polyop.tensor.meta import META_SPACE, Meta, meta_of_array

Fn = Callable[..., Any]
Array = np.ndarray[Any, Any]


def to_device_kernel(x: Array, device: Any) -> Array | Meta:
    """Copy, or give what is known without the data."""
    if on_meta(Device(device)):
        return to_device_fake(meta_of_array(x, META_SPACE), META)
    return copied(x)


def to_device_fake(x: Meta, device: Device) -> Meta:
    """Describe the copy.

    Raises:
        UsageError: it is on `meta` outside of fake modes, and has no data to move.
    """
    if x.device is META and x.space.mode is None and device is not META:
        raise UsageError("a tensor on the device meta has no data to move", seen=f"to {device}")
    return x.but(device=device, strides=pointwise_strides(x.shape, [x]))


to_device: Fn = define(
    "to_device(Tensor x, Device device) -> Tensor",
    to_device_kernel,
    fake=to_device_fake,
    grad={"x": "to_device(g, x.device)"},
    vmap=behind(lambda x, _, device: to_device(x, device)),
)

__all__ = ["to_device"]
