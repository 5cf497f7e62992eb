"""How tensors are printed: by the class of their payload.

Read when a tensor is first printed, and by the files of payloads that say how theirs are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from polyop.dispatch.bits import FAKE
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor


class Printer:
    """How tensors are printed; layers put in the text of their payloads."""

    def __init__(self) -> None:
        self.texts: dict[type, Callable[[Tensor], str]] = {}

    def text(self, tensor: Tensor) -> str:
        """Give the text of a tensor."""
        make = self.texts.get(type(tensor.payload))
        return make(tensor) if make else f"tensor({tensor.payload!r})"


PRINTER = Printer()


def _array_text(tensor: Tensor) -> str:
    array = tensor.payload
    text = np.array2string(array, separator=", ", prefix="tensor(", threshold=1000)
    tail = ""
    if array.dtype.name not in {"float32", "int64", "bool"}:
        tail += f", dtype={array.dtype.name}"
    if tensor.requires_grad:
        tail += ", requires_grad=True"
    return f"tensor({text}{tail})"


def _meta_text(tensor: Tensor) -> str:
    size = ", ".join(map(str, tensor.shape))
    name = "FakeTensor" if tensor.keys & FAKE else "tensor"
    return f"{name}(..., size=({size}), dtype={tensor.dtype.name}, device={tensor.device})"


PRINTER.texts[np.ndarray] = _array_text
PRINTER.texts[Meta] = _meta_text
