"""What a framework's compiler made of an operator's rules is made anew when they change.

Compiled code holds what the rules of its operators said: sizes, gradients, batches. Who registers
one again, as in the cell of a notebook, gets code of the new one from the next call on.

NOTE [Compilers at work]
Another thread may be compiling with the rules of before, and would keep what it makes. So whoever
changes a rule waits for those that were at work, and then empties once more what there is. Within
a compiler, or within what it reads, nobody can wait for it: a thread of its own does.
"""

from __future__ import annotations

import os.path
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Thread, get_ident
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.own_call import CHANGED
from polyop.errors import PolyopWarning
from polyop.warn import warn_once

#: So many seconds a change waits for compilers that are at work.
PATIENCE = 20.0
#: The kernels that say what a compiler keeps; all others run when compiled code does.
_KEPT = frozenset((DispatchKey.Meta, DispatchKey.CompositeImplicitAutograd))


class Compiled:
    """What one framework has compiled.

    Args:
        name: of the framework.
        empty: forgets what was compiled with an operator.
        files: ends of the names of files whose functions run while the framework compiles.
        awaited: those of functions that a compiler may wait for.
    """

    def __init__(
        self,
        name: str,
        empty: Callable[[OpOverload], None],
        files: Sequence[str],
        awaited: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.empty = empty
        self.files = paths(files)
        self.awaited = paths(awaited)
        self._rules: WeakKeyDictionary[OpOverload, dict[Any, Any]] = WeakKeyDictionary()
        CHANGED.append(self._changed)

    def holds(self, op: OpOverload) -> None:
        """Say that the compiler has met an operator."""
        if op not in self._rules:
            with LOCK:
                self._rules[op] = _rules(op)

    def _changed(self, one: Any) -> None:
        known = self._rules.get(one) if isinstance(one, OpOverload) else None
        if known is None or (one.alive and known == _rules(one)):
            return
        del self._rules[one]
        # A compiler at work may wait for the lock that is held here.
        LOCK.afterwards(partial(self._renew, one))

    def _renew(self, op: OpOverload) -> None:
        if sys.is_finalizing():
            return
        mine = _outermost(sys._getframe(), self.files)
        others = _at_work(self.files)
        if mine is None:
            self.empty(op)
        else:
            others.append((get_ident(), mine))
        if mine is None and _outermost(sys._getframe(), self.awaited) is None:
            self._empty_after(op, others)
            return
        Thread(target=self._empty_after, args=(op, others), daemon=True).start()

    def _empty_after(self, op: OpOverload, frames: Sequence[tuple[int, FrameType]]) -> None:
        """Empty it once more when the functions that run now have returned."""
        if not frames:
            return
        end = time.monotonic() + PATIENCE
        while any(_runs(*one) for one in frames) and time.monotonic() < end:
            time.sleep(0.001)
        if time.monotonic() >= end:
            warn_once(
                PolyopWarning,
                f"a rule of {op.name()} was changed while {self.name} compiled in another thread, "
                "which goes on for long; what it compiles may hold the former rule",
                key=f"{self.name} at work",
            )
        self.empty(op)


def _rules(op: OpOverload) -> dict[Any, Any]:
    """Give the rules that compiled code is made of."""
    if op.places.top(DispatchKey.CompositeImplicitAutograd) is not None:
        # It is compiled as what it is made of, unless a kernel acts before or instead.
        return {place: kernel.fn for place, kernel in op.places.items()}
    kept = _KEPT
    if op.places.top("fake") is None:  # a kernel may stand for it
        kept |= {DispatchKey.CompositeExplicitAutograd}
    return {
        place: kernel.fn
        for place, kernel in op.places.items()
        if isinstance(place, str) or place in kept
    }


def paths(names: Sequence[str]) -> tuple[str, ...]:
    """Spell the ends of names of files as they are spelled here."""
    return tuple([os.path.join(*name.split("/")) for name in names])


# -- who is at work -----------------------------------------------------------------------------


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    # Under frames of PyTorch's own, Python 3.11 has been seen to give something else than a frame.
    while isinstance(frame, FrameType):
        yield frame
        frame = frame.f_back


def _outermost(frame: FrameType | None, files: tuple[str, ...]) -> FrameType | None:
    """Give the first function of some files that a thread is in."""
    found = None
    for one in _stack(frame):
        if one.f_code.co_filename.endswith(files):
            found = one
    return found


def _at_work(files: tuple[str, ...]) -> list[tuple[int, FrameType]]:
    """Give the other threads that are in functions of some files, and the first of these."""
    pairs = [
        (thread, _outermost(frame, files))
        for thread, frame in sys._current_frames().items()
        if thread != get_ident()
    ]
    return [(thread, frame) for thread, frame in pairs if frame is not None]


def _runs(thread: int, frame: FrameType) -> bool:
    """Tell whether a function has not returned yet."""
    return any(one is frame for one in _stack(sys._current_frames().get(thread)))


def is_anyone_in(files: tuple[str, ...]) -> bool:
    """Tell whether a thread, this one also, is in a function of some files."""
    return _outermost(sys._getframe(), files) is not None or bool(_at_work(files))
