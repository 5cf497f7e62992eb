"""The one lock of all registrations.

A library that nobody holds is taken back by its finalizer, which the garbage
collector may start at any allocation: also between two steps of a registration
of this very thread, which a reentrant lock would let through. So what a
finalizer does waits until its thread is out of the lock.

NOTE [No Python code holds the lock]
An interrupt (Ctrl-C) may come in before the first line of any Python function:
one that leaves the lock would never leave it then. So both ends of a `with`
are those of the C lock. What waits is called by the death of the callable that
leaves, which a `with` drops when it has called it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import local
from typing import Any
from weakref import ref

from polyop.forks import process_lock

Leave = partial[None]


class _Here(local):
    """Of one thread: what leaves its outermost block, who waits for that, and what is done then."""

    def __init__(self) -> None:
        self.leave: Callable[[], Leave | None] = lambda: None
        self.watch: ref[Leave] | None = None
        self.after: list[Callable[[], None]] = []


class RegistryLock:
    """Held while rules change and while a call is decided."""

    __slots__ = ("_here", "_late", "_lock")

    def __init__(self) -> None:
        self._lock = process_lock()
        self._here = _Here()
        self._late: deque[Callable[[], None]] = deque()

    @property
    def __enter__(self) -> Callable[[], bool]:
        """What takes the lock."""
        return self._lock.__enter__

    @property
    def __exit__(self) -> Leave:  # noqa: PLE0302 - what it gives takes them
        """What leaves the lock."""
        leave: Leave = partial(self._lock.__exit__)
        if self._here.leave() is None:
            self._here.leave = ref(leave)
        return leave

    @property
    def is_mine(self) -> bool:
        """Whether this thread holds the lock."""
        return self._here.leave() is not None

    def afterwards(self, action: Callable[[], None]) -> None:
        """Do something as soon as this thread does not hold the lock any more."""
        self._here.after.append(action)
        self._settle_at_end()

    def between(self, action: Callable[[], None]) -> None:
        """Do something now, or when this thread leaves the lock."""
        self._late.append(action)
        self._settle_at_end()

    def _settle_at_end(self) -> None:
        leave = self._here.leave()
        if leave is None:
            self._settle()
        else:
            self._here.watch = ref(leave, self._settle)

    def _settle(self, left: object = None) -> None:
        """Do what waits: first what holds the lock, then what may not."""
        with self:
            while self._late:
                self._late.popleft()()
        after, self._here.after = self._here.after, []
        for action in after:
            action()


def to_the_end(fn: Callable[[Any], None], of: Any) -> None:
    """Call what nobody may see half done, once more if an interrupt (Ctrl-C) breaks it off."""
    try:
        fn(of)
    except BaseException:
        fn(of)
        raise


LOCK = RegistryLock()
