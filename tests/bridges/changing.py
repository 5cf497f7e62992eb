"""Rules that are registered again while threads call what a framework has compiled with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any


def stale_slopes(
    op: Any, slopes: Sequence[Callable[[], float]], last: int, pause: float
) -> list[Any]:
    """Register backwards of slope 2, 3, ... while two threads for each caller read them.

    Args:
        op: the operator, of slope 1.
        slopes: give the slope that compiled code has now.
        last: the slope that is registered last.
        pause: between two registrations, in seconds.

    Returns:
        Errors, and pairs of a slope that was read and a greater one registered before.
    """
    known, stop, wrong = [1], threading.Event(), []

    def work(slope: Callable[[], float]) -> None:
        while not stop.is_set():
            least = known[0]
            try:
                found = slope()
            except Exception as error:
                wrong.append(error)
            else:
                wrong.extend([(found, least)] if found < least else [])

    threads = [threading.Thread(target=work, args=(slope,)) for slope in (*slopes, *slopes)]
    for thread in threads:
        thread.start()
    try:
        for k in range(2, last + 1):
            op.register_autograd(lambda ctx, g, k=k: g * k)
            known[0] = k
            threading.Event().wait(pause)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return wrong
