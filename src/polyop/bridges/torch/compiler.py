"""When PyTorch's compiler starts, it is told of the operators that it does not know yet.

What tells it is read then, and objects of operators forward from then on, which costs each call a
frame: a process that only has the compiler loaded, as most that use PyTorch, pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from polyop.bridges.frameworks import UNKNOWN
from polyop.dispatch.lock import LOCK
from polyop.lazy import load


def let_in(_: Any = None) -> None:
    """Make the operators known that are not yet."""
    substitute = load("polyop.bridges.torch.dynamo:substitute")
    while UNKNOWN:
        with LOCK:
            waiting = [op for op in UNKNOWN if op.alive]
            UNKNOWN.clear()
        for op in waiting:
            substitute(op)
    load("polyop.bridges.torch.dynamo:tag")()


class _Listeners(list[Callable[[Any], None]]):
    """Who listens when a compilation starts: the compiler's reset does not forget us."""

    def clear(self) -> None:
        """Leave nobody but us."""
        self[:] = [let_in]


def listen() -> bool:
    """Ask to be called whenever a compilation starts, and tell whether the compiler does it."""
    handler = getattr(getattr(torch, "_dynamo", None), "callback_handler", None)
    found = getattr(handler, "start_callbacks", None)
    if found.__class__ is not list:
        return False
    handler.start_callbacks = _Listeners([*found, let_in])  # type: ignore[union-attr]
    return True
