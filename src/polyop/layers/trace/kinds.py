"""Which results a program can give."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np

from polyop.devices import Device
from polyop.errors import CaptureError
from polyop.schema.opaque import opaque_type
from polyop.symbolic import is_symbolic
from polyop.tensor.tensor import Tensor

#: Results that a program gives as they are.
_CONSTANTS = (int, float, complex, str, bytes, np.generic, np.dtype, Device, Enum)


def refuse_kind(result: Any, source: object = "") -> None:
    """Refuse a result that may hold tensors of the trace, or be another object at each call.

    Args:
        result: one that is no container.
        source: where the function is written.

    Raises:
        CaptureError: it is no tensor, number or opaque object.
    """
    if isinstance(result, (Tensor, *_CONSTANTS)) or is_symbolic(result):
        return
    if opaque_type(result.__class__) is None:
        raise CaptureError(
            "a result is no tensor, number or container of them",
            seen=type(result).__name__,
            source=source,
            fix="return what it gives, or is made of",
        )
