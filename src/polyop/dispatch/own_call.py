"""What an operator object does when it is called: after the first time, its entry alone.

A call through an object costs a frame if `__call__` forwards, so an object that is called gets a
class of its own whose `__call__` is the entry itself. Compilers that read Python follow a method
that forwards, but not such a class: one that cannot be told of them lets all objects forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet

from polyop.dispatch.bits import TRACE

#: The objects that have a class of their own.
QUICK: WeakSet[Any] = WeakSet()
#: Whether objects forward from now on.
FORWARDING: list[bool] = [False]
#: Who is told of each object that gets a class of its own.
TELL: list[Callable[[Any], None]] = []
#: Who is told of each operator that changes, and each packet.
CHANGED: list[Callable[[Any], None]] = []
#: How many changes there were of operators that a capture has met: its program may hold them.
CAPTURED_CHANGES: list[int] = [0]


def first_call(caller: Any, base: type, op: Any) -> Callable[..., Any]:
    """Let the entry be an object's own `__call__`, and give it."""
    entry: Callable[..., Any] = op.entry
    if not FORWARDING[0]:
        own_class(caller, base, entry)
    return entry


def own_class(caller: Any, base: type, entry: Callable[..., Any] | None) -> None:
    """Give an object a class of its own, whose `__call__` is the entry, if there is one."""
    scope: dict[str, Any] = {"__module__": base.__module__}
    if entry is not None:
        scope["__call__"] = staticmethod(entry)
    caller.__class__ = type(base.__name__, (base,), scope)
    QUICK.add(caller)
    for tell in TELL:
        tell(caller)


def tell_changed(one: Any) -> None:
    """Tell of an operator whose rules are others now, or of a packet whose operators are."""
    for tell in CHANGED:
        tell(one)


def note_captured(codes: Iterable[int]) -> None:
    """Count the change of an operator that was called with some codes, if one was of a capture."""
    if any(code & TRACE for code in codes):
        CAPTURED_CHANGES[0] += 1


def renew(caller: Any) -> None:
    """Give an object that has a class of its own another one, which does the same."""
    former = type(caller)
    call = vars(former).get("__call__")
    own_class(caller, former.__bases__[0], None if call is None else call.__func__)


def forward_always() -> None:
    """Let all objects forward, those also that have been called."""
    FORWARDING[0] = True
    for caller in list(QUICK):
        caller.__class__ = type(caller).__bases__[0]
    QUICK.clear()
