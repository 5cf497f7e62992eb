"""One thread that builds what calls can do without, while they go on as they are.

It lives only while there is work: a program that forks, or ends, then finds none. While there is,
a fork waits for the piece under way (`forks.py`); the end of the program waits as well, so that the
piece is whole, for two seconds at most.
"""

from __future__ import annotations

import atexit
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread

from polyop.forks import PATIENCE, process_lock

Job = Callable[[], None]


class Builder:
    """Runs jobs in their order, in a thread of its own that ends with the last of them."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.thread: Thread | None = None
        self.lock = Lock()  # of the two above
        self.busy = process_lock()  # held while a job runs
        self.watches = self.ended = False

    def put(self, job: Job) -> None:
        """Have a job done; what it raises is its end, and nobody hears of it."""
        with self.lock:
            if self.ended:
                return
            self.jobs.append(job)
            if self.thread is None:
                self._start()

    def wait(self, seconds: float) -> bool:
        """Wait until all jobs are done, and tell whether they are."""
        thread = self.thread
        if thread is not None:
            thread.join(seconds)
        return self.thread is None

    def _start(self) -> None:
        if not self.watches:
            self.watches = True
            atexit.register(self._end)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._renew)
        thread = Thread(target=self._run, name="polyop-builder", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the program ends
            self.jobs.clear()
        else:
            self.thread = thread

    def _run(self) -> None:
        while True:
            with self.lock:
                if not self.jobs:
                    self.thread = None
                    return
                job = self.jobs.popleft()
            with self.busy, suppress(Exception):  # calls do without what it would have built
                job()

    # -- the end, and forks -------------------------------------------------------

    def _end(self) -> None:
        with self.lock:
            self.ended = True
            self.jobs.clear()
        self.wait(PATIENCE)

    def _renew(self) -> None:
        """Begin anew in a child, which has no thread but the one that forked."""
        self.lock, self.thread = Lock(), None


BUILDER = Builder()
