"""What a function asks of a tensor beside its data, while it is captured.

A fake stands for another tensor: whether that is a leaf, or has a gradient, the
fake does not know. So the capture of a thread is told what is asked, and
answers. While there is no capture, a question costs one look at a dict more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import get_ident
from typing import Any, Protocol, TypeAlias, TypeVar

from polyop.dispatch.context import word
from polyop.source import PACKAGE

T = TypeVar("T")
#: The class is written in terms of this file.
Tensor: TypeAlias = Any


class Answering(Protocol):
    """What this file needs of `Capture`, which is built on top of it."""

    def answer(self, tensor: Tensor, name: str, found: Any) -> Any:
        """Give what an attribute is for the captured function."""

    def assigned(self, tensor: Tensor, name: str) -> None:
        """Meet an attribute that is set."""


#: The captures under way, by thread.
CAPTURES: dict[int, Answering] = {}


def answering(capture: Answering, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call `fn`, and let a capture answer what it asks of tensors in this thread."""
    # No block: an interrupt (Ctrl-C) before the first line of its end would leave the capture.
    thread = get_ident()
    before = CAPTURES.get(thread)
    try:
        CAPTURES[thread] = capture
        return fn(*args, **kwargs)
    finally:
        del CAPTURES[thread]
        if before is not None:
            CAPTURES[thread] = before


def answer(tensor: Tensor, name: str, found: T) -> T:
    """Give what an attribute is for the function that is captured.

    Args:
        tensor: what is asked.
        name: the attribute.
        found: what the tensor itself says.
    """
    capture = CAPTURES.get(get_ident())
    if capture is None:
        return found
    _by_user(tensor, name)
    if name == "requires_grad":
        return found  # inputs stand for their callers' in that
    given: T = capture.answer(tensor, name, found)
    return given


def assigned(tensor: Tensor, name: str) -> None:
    """Let the capture know that a function sets an attribute."""
    capture = CAPTURES.get(get_ident())
    if capture is not None:
        capture.assigned(tensor, name)


def note(tensor: Tensor, name: str) -> Tensor:
    """Tell a trace that its function asks for what the next inputs may answer in another way.

    Args:
        tensor: what is asked.
        name: the attribute.

    Returns:
        The tensor that has the history: where a functionalization acts, that is the value.
    """
    asked = getattr(word().recorder, "asked", None)
    if asked is not None and _by_user(tensor, name):
        asked.add(name)
    while (value := getattr(tensor.payload, "recorded_value", None)) is not None:
        tensor = value
    return tensor


def _by_user(tensor: Tensor, name: str) -> bool:
    """Tell whether a user's function asks; the trace of a part of it may refuse that."""
    now = word()
    asker = sys._getframe(3).f_code.co_filename
    if now.rule is not None or asker.startswith((PACKAGE, "<polyop ")):
        return False  # a rule runs again with its operator, and code of ours knows what it gets
    doubt = getattr(now.recorder, "doubt", None)
    if doubt is not None:
        doubt(tensor, name)
    return True
