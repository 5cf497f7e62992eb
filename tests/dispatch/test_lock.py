"""What a garbage collection takes back waits for registrations to end."""

from __future__ import annotations

import gc
import threading

import polyop.assembly  # noqa: F401
from polyop.dispatch.library import Library
from polyop.dispatch.lock import LOCK, RegistryLock
from polyop.dispatch.registry import DEFINITIONS


def test_a_lost_library_waits_for_the_lock() -> None:
    """S41: a library collected in the midst of a registration goes when that has ended."""
    lib = Library("lock_lost", "FRAGMENT")
    lib.define("f(Tensor x) -> Tensor")
    with LOCK:
        with LOCK:
            del lib
            gc.collect()
        assert "lock_lost::f" in DEFINITIONS
    assert "lock_lost::f" not in DEFINITIONS


def test_an_action_frees_another() -> None:
    """S41: what an action puts off is done after it, before the lock is free."""
    lock, seen = RegistryLock(), []

    def first() -> None:
        lock.between(lambda: seen.append("second"))
        seen.append("first")

    with lock:
        lock.between(first)
        assert not seen
    assert seen == ["first", "second"]
    lock.between(lambda: seen.append("now"))
    assert seen[-1] == "now"


def test_threads_wait_for_each_other() -> None:
    """S41: an action of another thread waits for the lock, and is done once."""
    lock, seen = RegistryLock(), []
    with lock:
        other = threading.Thread(target=lock.between, args=(lambda: seen.append(1),))
        other.start()
        other.join(0.05)
    other.join()
    assert seen == [1]


def test_what_comes_afterwards_holds_no_lock() -> None:
    """S34: an action that others may wait for is done once this thread has left the lock."""
    lock, seen = RegistryLock(), []

    def action() -> None:
        other = threading.Thread(target=lambda: (lock.__enter__(), seen.append(1), lock.__exit__()))
        other.start()
        other.join(5)
        seen.append(2)

    with lock:
        with lock:
            lock.afterwards(action)
        assert not seen
    assert seen == [1, 2]
    lock.afterwards(action)
    assert seen == [1, 2, 1, 2]
