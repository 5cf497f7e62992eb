"""Tensors of data that a program holds."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.bits import FAKE_MODE, PRE_DISPATCH, TRACE
from polyop.dispatch.context import word
from polyop.tensor.tensor import Tensor, of_array

#: Something may record what a function does.
TRACED = TRACE | PRE_DISPATCH


def constant(array: Any, *, shared: bool = False) -> Tensor:
    """Wrap data that the program holds; inside a fake mode, without a trace, it becomes a fake."""
    made = of_array(array)
    now = word()
    if now & FAKE_MODE and now.recorder is now.probing:
        fake: Tensor = now.fake.constant(made)
        return fake
    return noted(made, shared=shared) if now & TRACED else made


def noted(made: Tensor, *, shared: bool) -> Tensor:
    """Let a trace know that its function makes a tensor of data, and give this.

    Args:
        made: the tensor.
        shared: whether its memory is that of an array which others may have.
    """
    recorder = word().recorder
    if recorder is not None and recorder is not word().probing:
        recorder.note_made(made, shared=shared)
    return made
