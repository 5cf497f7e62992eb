"""Where a rule was registered: file and line.

Every registration keeps its source, every error shows it, and a definition
repeated from the same place (a reload, a notebook cell run again) is known to
be the same one.
"""

from __future__ import annotations

import os.path
import sys
from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any

from polyop.records import NamedTuple

PACKAGE = os.path.dirname(__file__)


class Source(NamedTuple):
    """A place in a file; printed as `file:line`."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


UNKNOWN = Source("<unknown>", 0)


def caller_frame() -> FrameType | None:
    """Find the innermost frame outside this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((PACKAGE, "<polyop ")):
        frame = frame.f_back
    return frame


def caller() -> Source:
    """Give the place that called into this package."""
    frame = caller_frame()
    return Source(frame.f_code.co_filename, frame.f_lineno) if frame else UNKNOWN


def construction_of(made: object) -> Source:
    """Give the place where an object is made: outside of its constructors."""
    frame = sys._getframe(1)
    while frame.f_back and any(v is made for v in frame.f_locals.values()):
        frame = frame.f_back
    return Source(frame.f_code.co_filename, frame.f_lineno)


def source_of(fn: Callable[..., Any]) -> Source:
    """Give the place where a callable is written, or of the caller if it has none."""
    if type(fn) is FunctionType and not fn.__dict__:
        return Source(fn.__code__.co_filename, fn.__code__.co_firstlineno)
    inner = getattr(fn, "__wrapped__", fn)
    inner = getattr(inner, "func", inner)
    code = getattr(getattr(inner, "__func__", inner), "__code__", None)
    return Source(code.co_filename, code.co_firstlineno) if code else caller()
