"""Locks of the whole process, and processes that fork.

A child has no thread but the one that forked: what another thread held then would stay locked, and
what it was changing half changed. So a fork waits until these locks are free, and no part of the
package is being imported, two seconds at most; a lock that is not free by then begins anew in the
child.
"""

from __future__ import annotations

import os
from _thread import RLock, get_ident
from time import monotonic, sleep

from polyop.lazy import LOADING

#: The longest that a fork waits, in seconds.
PATIENCE = 2.0
#: In the order of their making. Who holds one may want an older one, of a floor below.
_LOCKS: list[RLock] = []
#: By the thread that forks, the locks that it holds meanwhile.
_held: dict[int, list[RLock]] = {}


def process_lock() -> RLock:
    """Make a lock for what there is once in a process."""
    lock = RLock()
    _LOCKS.append(lock)
    return lock


def _hold() -> None:
    me, end = get_ident(), monotonic() + PATIENCE
    while True:
        held = _held[me] = []
        for lock in reversed(_LOCKS):
            if lock.acquire(timeout=max(0.0, end - monotonic())):
                held.append(lock)
        if all(thread == me for thread in LOADING) or monotonic() > end:
            return
        _release()  # who imports may want a lock
        sleep(0.001)


def _release() -> None:
    for lock in _held.pop(get_ident()):
        lock.release()


def _renew() -> None:
    held = _held[get_ident()]
    for lock in _LOCKS:
        if not any(lock is one for one in held):
            lock._at_fork_reinit()  # type: ignore[attr-defined]  # no stub names it
    _release()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_renew)
