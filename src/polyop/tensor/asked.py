"""What a function asks of a tensor beside its data, while it is captured.

A fake stands for another tensor: whether that is a leaf, or has a gradient, the
fake does not know. So the capture of a thread is told what is asked, and
answers. While there is no capture, a question costs one look at a dict more.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def answering(capture: Answering) -> Iterator[None]:
    """Let a capture answer what this thread asks of tensors."""
    before = CAPTURES.get(get_ident())
    CAPTURES[get_ident()] = capture
    try:
        yield
    finally:
        del CAPTURES[get_ident()]
        if before is not None:
            CAPTURES[get_ident()] = before


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
    now = word()
    asked = getattr(now.recorder, "asked", None)
    if asked is not None and now.rule is None:  # a rule runs again with its operator
        asker = sys._getframe(2).f_code.co_filename
        if not asker.startswith((PACKAGE, "<polyop ")):  # code that knows what it gets
            asked.add(name)
    while (value := getattr(tensor.payload, "recorded_value", None)) is not None:
        tensor = value
    return tensor
