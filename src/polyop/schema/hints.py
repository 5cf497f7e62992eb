"""Postponed annotations: text to the object that the author meant (SPEC S21).

The text is compiled once per spelling and evaluated in the author's own names
each time, as a notebook may have bound them anew.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable
from functools import cached_property, lru_cache
from types import CodeType, FrameType
from typing import Any

from polyop.source import caller_frame


class UnknownNameError(Exception):
    """A name in an annotation that no scope has."""

    def __init__(self, name: str, text: str, scopes: tuple[str, ...]) -> None:
        super().__init__(f"{name!r} in the annotation {text!r} is not known")
        self.name = name
        self.text = text
        self.scopes = scopes


class Scope:
    """The names that a function's annotations may use."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    @cached_property
    def inner(self) -> Any:
        """The function that the annotations were written at."""
        return innermost(self.fn)

    @cached_property
    def globals(self) -> dict[str, Any]:
        """The names of its module."""
        return getattr(self.inner, "__globals__", {})

    @cached_property
    def locals(self) -> dict[str, Any]:
        """The names around its definition, and in its closure."""
        found: dict[str, Any] = {}
        for frame in reversed(enclosing_frames(self.inner)):
            found.update(frame.f_locals)
        if closure := getattr(self.inner, "__closure__", None):
            found.update(_cells(self.inner.__code__.co_freevars, closure))
        return found

    @property
    def tried(self) -> tuple[str, ...]:
        """The places in which names are looked up."""
        frames = (f"{frame.f_code.co_qualname}" for frame in enclosing_frames(self.inner))
        return (f"module {self.globals.get('__name__', '?')}", *frames, "the closure")

    def resolve(self, text: str) -> Any:
        """Evaluate an annotation.

        Raises:
            UnknownNameError: if a name in it has no value.
        """
        try:
            # What `typing.get_type_hints` does, without compiling anew.
            return eval(_compiled(text), self.globals, self.locals)  # noqa: S307
        except NameError as error:
            raise UnknownNameError(error.name or "?", text, self.tried) from None
        except (SyntaxError, AttributeError, TypeError) as error:
            raise UnknownNameError(str(error), text, self.tried) from None


@lru_cache(maxsize=4096)
def _compiled(text: str) -> CodeType:
    return compile(text.strip(), "<annotation>", "eval", dont_inherit=True)


def _cells(names: tuple[str, ...], cells: tuple[Any, ...]) -> dict[str, Any]:
    found = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue  # the enclosing function has not bound it yet
    return found


def innermost(fn: Any) -> Any:
    """Give the function inside partials, methods, wrappers and callable objects."""
    while True:
        if hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        elif hasattr(fn, "__func__"):
            fn = fn.__func__
        elif hasattr(fn, "func") and not hasattr(fn, "__code__"):
            fn = fn.func
        elif not hasattr(fn, "__globals__") and hasattr(type(fn).__call__, "__globals__"):
            fn = type(fn).__call__
        else:
            return fn


def enclosing_frames(fn: Any) -> list[FrameType]:
    """Find the running functions and classes in which `fn` is written, innermost first."""
    name = getattr(fn, "__qualname__", "")
    outer = _prefixes(name)
    found: list[FrameType] = []
    frame = caller_frame() if outer else None
    while frame is not None and outer:
        if frame.f_globals is fn.__globals__ and frame.f_code.co_qualname in outer:
            outer.discard(frame.f_code.co_qualname)
            found.append(frame)
        frame = frame.f_back
    return found


def _prefixes(qualname: str) -> set[str]:
    parts = qualname.split(".")[:-1]
    names = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    return {name for name in names if not name.endswith("<locals>")}


def class_hints(cls: type, scope: Scope | None) -> dict[str, Any]:
    """Give the annotations of a record class, evaluated in its own module.

    Raises:
        UnknownNameError: if a name in one is not known.
    """
    own = vars(sys.modules.get(cls.__module__, typing))
    # The record's module comes first; the function's names are for records beside it.
    local = scope.locals if scope and scope.globals is own else {}
    names = {**(scope.globals if scope else {}), **own}
    try:
        return typing.get_type_hints(cls, globalns=names, localns=local, include_extras=True)
    except NameError as error:
        tried = (f"module {cls.__module__}", *(scope.tried if scope else ()))
        raise UnknownNameError(error.name or "?", f"class {cls.__qualname__}", tried) from None
