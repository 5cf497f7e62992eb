"""What an operator object does when it is called: after the first time, its entry alone.

A call through an object costs a frame if `__call__` forwards, so an object that is called gets a
class of its own whose `__call__` is the entry itself. Compilers that read Python follow a method
that forwards, but not such a class; from the moment that one starts, objects forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

#: The objects that have a class of their own.
QUICK: WeakSet[Any] = WeakSet()
#: Whether objects forward from now on.
FORWARDING: list[bool] = [False]


def first_call(caller: Any, base: type, op: Any) -> Callable[..., Any]:
    """Let the entry be an object's own `__call__`, and give it."""
    entry: Callable[..., Any] = op.entry
    if FORWARDING[0]:
        return entry
    call = {"__call__": staticmethod(entry), "__module__": base.__module__}
    caller.__class__ = type(base.__name__, (base,), call)
    QUICK.add(caller)
    return entry


def forward_always() -> None:
    """Let all objects forward, those also that have been called."""
    FORWARDING[0] = True
    for caller in list(QUICK):
        caller.__class__ = type(caller).__bases__[0]
    QUICK.clear()
