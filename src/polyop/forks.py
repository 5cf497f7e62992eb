"""Locks of the whole process and of single objects, and processes that fork.

A child has no thread but the one that forked: what another thread held then would stay locked, and
what it was changing half changed. So a fork waits until these locks are free, and no part of the
package is being imported, two seconds at most; a lock that is not free by then begins anew in the
child.
"""

from __future__ import annotations

import os
from _thread import RLock, get_ident
from collections.abc import Callable
from time import monotonic, sleep
from weakref import ref

from polyop.lazy import LOADING

#: The longest that a fork waits, in seconds.
PATIENCE = 2.0
#: The longest that one of many rounds waits for a lock, whose holder may want another.
_ROUND = 0.1
#: By identity, the locks of each sort, in the order of the sorts' making. Who holds a lock may want
#: one of an older sort, of a floor below.
_SORTS: list[dict[int, ref[RLock]]] = []
#: By the thread that forks, the locks that it holds meanwhile.
_held: dict[int, list[RLock]] = {}


def lock_maker() -> Callable[[], RLock]:
    """Give what makes the locks of one sort of objects; each lasts as long as its object."""
    sort: dict[int, ref[RLock]] = {}
    _SORTS.append(sort)

    def make() -> RLock:
        lock = RLock()
        key = id(lock)
        sort[key] = ref(lock, lambda _: sort.pop(key, None))
        return lock

    return make


def process_lock() -> RLock:
    """Make a lock for what there is once in a process."""
    return lock_maker()()


def _locks() -> list[RLock]:
    """List the locks there are, those first whose holders may want others."""
    found = [weak() for sort in reversed(_SORTS) for weak in list(sort.values())]
    return [lock for lock in found if lock is not None]


def _hold() -> None:
    me, end = get_ident(), monotonic() + PATIENCE
    while True:
        left = end - monotonic()
        held = _held[me] = []
        locks = _locks()
        for lock in locks:
            if lock.acquire(timeout=max(0.0, min(_ROUND, end - monotonic()))):
                held.append(lock)
        free = len(held) == len(locks) and all(thread == me for thread in LOADING)
        if free or left < 0:
            return
        _release()  # who imports, or holds one, may want another
        sleep(0.001)


def _release() -> None:
    for lock in _held.pop(get_ident()):
        lock.release()


def _renew() -> None:
    held = _held[get_ident()]
    for lock in _locks():
        if not any(lock is one for one in held):
            lock._at_fork_reinit()  # type: ignore[attr-defined]  # no stub names it
    _release()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_renew)
