"""What a captured function reads besides its arguments, and whether it is still the same.

A capture runs the function once; a number that it read from a global or a
closure is part of the graph. So the values that the code names are looked at
before each run: plain values by equality, tensors and functions by identity.
Attributes of attributes, and what other libraries keep, are not seen; what
changes there is the caller's word (`docs/architecture.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

from polyop.tensor.tensor import Tensor

#: Values of these types are compared; others count as the same while they are the same object.
PLAIN = (int, float, complex, str, bytes, bool, type(None), tuple)
MOST = 200


@dataclass(frozen=True, slots=True)
class Read:
    """One name that the code reads: where it is found, and what it was."""

    scope: Any  # a dict, or a cell
    name: str
    value: Any

    def same(self) -> bool:
        """Tell whether the name still has the value."""
        now = _value(self.scope, self.name)
        if now is self.value:
            return True
        return (
            isinstance(now, PLAIN) and type(now) is type(self.value) and bool(now == self.value)
        )


_GONE = object()


def _value(scope: Any, name: str) -> Any:
    if isinstance(scope, dict):
        return scope.get(name, _GONE)
    try:
        return scope.cell_contents
    except ValueError:
        return _GONE


def environment(fn: Callable[..., Any]) -> tuple[Read, ...]:
    """List what a function, and the functions of its own module that it calls, read."""
    found: dict[tuple[int, str], Read] = {}
    waiting: list[Any] = [fn]
    seen: set[int] = set()
    while waiting and len(found) < MOST:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        for read in _reads(current):
            found.setdefault((id(read.scope), read.name), read)
            if isinstance(read.value, (FunctionType, MethodType)) and _is_users(read.value):
                waiting.append(read.value)
    return tuple(found.values())


def _is_users(fn: Any) -> bool:
    return not str(getattr(fn, "__module__", "")).startswith(("polyop.", "numpy"))


def _reads(fn: Any) -> Iterator[Read]:
    if isinstance(fn, MethodType):
        yield from _attributes(fn.__self__)
        fn = fn.__func__
    elif not isinstance(fn, FunctionType):
        yield from _attributes(fn)
        fn = getattr(type(fn), "__call__", None)
    if not isinstance(fn, FunctionType):
        return
    for cell, name in zip(fn.__closure__ or (), fn.__code__.co_freevars, strict=False):
        value = _value(cell, name)
        yield Read(cell, name, value)
        yield from _attributes(value)
    for name in fn.__code__.co_names:
        if name in fn.__globals__:
            value = fn.__globals__[name]
            yield Read(fn.__globals__, name, value)
            yield from _attributes(value)


def _attributes(owner: Any) -> Iterator[Read]:
    """List the attributes of a plain object, such as the weights of a layer."""
    if isinstance(owner, (type, FunctionType, MethodType, *PLAIN, Tensor)):
        return
    own = getattr(owner, "__dict__", None)
    if type(own) is dict and not str(type(owner).__module__).startswith(("polyop", "builtins")):
        for name, value in list(own.items()):
            if isinstance(value, (*PLAIN, Tensor, FunctionType)):
                yield Read(own, name, value)
