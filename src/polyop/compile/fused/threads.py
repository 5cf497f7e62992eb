"""Long loops on several cores: each thread runs the ufunc on its part of the arrays.

NumPy lets other threads run while a loop does. A part is long enough that what it takes to hand
it over does not count; arrays that are not laid out alike stay with one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from polyop.devices import DType
from polyop.lazy import load

if TYPE_CHECKING:
    from concurrent.futures import Executor

Array = np.ndarray[Any, Any]
#: The least number of elements that is worth a thread, as measured for ten cheap operators.
PART = 1 << 18
#: From so many elements on a loop may be split.
LARGE = 3 * PART


def count() -> int:
    """Give how many threads a loop may take: as the environment says, or one for each core."""
    for name in ("POLYOP_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdecimal() and int(text):
            return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(process: int, threads: int) -> Executor:
    """Give the threads beside the caller's; those of a process are gone in its child."""
    # Read when it is needed: it looks after forks, and must not begin to in the middle of one.
    made: Executor = load("concurrent.futures:ThreadPoolExecutor")(threads, "polyop-loop")
    return made


def run_split(
    ufunc: Any, flags: Callable[[], int], outputs: Sequence[DType], arrays: Sequence[Array]
) -> tuple[Any, int]:
    """Run a loop on arrays, in parts where these are long and laid out alike.

    Returns:
        The results, as the ufunc gives them, and the floating-point flags that were raised.
    """
    first = arrays[0]
    threads = min(count(), first.size // PART)
    alike = all(a.shape == first.shape and a.flags.c_contiguous for a in arrays)
    if threads < 2 or not alike:
        return ufunc(*arrays), flags()
    results = [np.empty(first.shape, dtype) for dtype in outputs]
    rows = [a.reshape(-1) for a in (*arrays, *results)]

    def part(place: slice) -> int:
        ufunc(*[row[place] for row in rows])
        return flags()

    raised = _run_all(part, _places(first.size, threads))
    return (results[0] if len(results) == 1 else tuple(results)), raised


def _places(size: int, threads: int) -> list[slice]:
    """Cut a row, on boundaries of cache lines."""
    step = -(-size // threads) + 63 & ~63
    return [slice(i, min(i + step, size)) for i in range(0, size, step)]


def _run_all(part: Callable[[slice], int], places: Sequence[slice]) -> int:
    """Run all parts, the first one here, and give the flags of all."""
    others = [_handed(part, place, len(places) - 1) for place in places[1:]]
    raised = part(places[0])
    for other in others:
        raised |= other()
    return raised


def _handed(part: Callable[[slice], int], place: slice, threads: int) -> Callable[[], int]:
    """Hand a part to a thread, and give what waits for it."""
    try:
        return _pool(os.getpid(), threads).submit(part, place).result
    except RuntimeError:  # at the interpreter's end threads take nothing more
        return lambda: part(place)
