"""The one lock of all registrations.

A library that nobody holds is taken back by its finalizer, which the garbage
collector may start at any allocation: also between two steps of a registration
of this very thread, which a reentrant lock would let through. So what a
finalizer does waits until its thread is out of the lock.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence

from polyop.forks import process_lock


class RegistryLock:
    """Held while rules change and while a call is decided."""

    __slots__ = ("_after", "_depth", "_late", "_lock")

    def __init__(self) -> None:
        self._lock = process_lock()
        self._depth = 0
        self._late: deque[Callable[[], None]] = deque()
        self._after: list[Callable[[], None]] = []  # of the thread that holds it
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        outermost = self._depth == 1
        after: Sequence[Callable[[], None]] = ()
        try:
            while outermost and self._late:
                self._late.popleft()()
        finally:
            if outermost and self._after:
                after, self._after = self._after, []
            self._depth -= 1
            self._lock.release()
        for action in after:
            action()
        if outermost and self._late:
            with self:  # for what came while this one left
                pass

    def _renew(self) -> None:
        """Forget, in a child, a thread that held the lock for longer than the fork waited."""
        mine: bool = self._lock._is_owned()  # type: ignore[attr-defined]  # no stub names it
        if self._depth and not mine:
            self._depth, self._after = 0, []

    def afterwards(self, action: Callable[[], None]) -> None:
        """Do something as soon as this thread does not hold the lock any more."""
        with self:
            self._after.append(action)

    def between(self, action: Callable[[], None]) -> None:
        """Do something now, or when this thread leaves the lock."""
        self._late.append(action)
        with self:
            pass


LOCK = RegistryLock()
