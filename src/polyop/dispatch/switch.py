"""Kernels that are switched off and on, at once or for a block (S52).

Blocks of several threads and tasks overlap, and the first to open need not be
the first to close. So an operator keeps who switched what, oldest first; the
newest of each key decides, and a block takes out only itself.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import ref

from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.errors import PolyopWarning
from polyop.warn import warn_once


class Switched(NamedTuple):
    """What one switch says of a key. It is no block's, and stays, once nobody holds the switch."""

    key: DispatchKey
    enabled: bool
    by: ref[KernelSwitch]

    @property
    def stays(self) -> bool:
        """Whether no block will take it out."""
        switch = self.by()
        return switch is None or not switch.open


class KernelSwitch:
    """A kernel that was switched; leaving the block switches it back."""

    def __init__(self, op: OpOverload, key: DispatchKey) -> None:
        self._op = op
        self._key = key
        self._enabled: bool | None = None  # nothing to switch
        self.open = 0  # how often it is entered

    def set(self, enabled: bool) -> None:
        """Switch the kernel, or warn that there is nothing to switch."""
        op, key = self._op, self._key
        with LOCK:
            if not op.alive:
                op.gone()
            if op.places.top(key) is None:
                self._warn(f"{op.name()} has no kernel for {key.name.lower()}: nothing was changed")
                return
            self._enabled = enabled
            if enabled is (key not in op.disabled):
                state = "enabled" if enabled else "disabled"
                self._warn(f"the {key.name.lower()} kernel of {op.name()} is {state} already")
            else:
                self._add(enabled)

    def _warn(self, text: str) -> None:
        warn_once(PolyopWarning, text, key=text, of=self._op)

    def _add(self, enabled: bool) -> None:
        _keep(self._op, [*self._op.switches, Switched(self._key, enabled, ref(self))])

    def __enter__(self) -> KernelSwitch:
        with LOCK:
            self.open += 1
            if self._enabled is not None and self._index() is None:
                self._add(self._enabled)  # what it found may go before it does
        return self

    def __exit__(self, *error: object) -> None:
        with LOCK:
            self.open -= 1
            i = self._index()
            if i is None or self.open:
                return
            # What was switched for good inside the block goes with it.
            later = [s for s in self._op.switches[i + 1 :] if s.key is not self._key or not s.stays]
            _keep(self._op, [*self._op.switches[:i], *later])

    def _index(self) -> int | None:
        """Find what this switch said."""
        return next((i for i, s in enumerate(self._op.switches) if s.by() is self), None)


def _keep(op: OpOverload, switches: list[Switched]) -> None:
    """Keep what matters of these, and decide which kernels are off."""
    later: set[DispatchKey] = set()
    kept: list[Switched] = []
    for switched in reversed(switches):
        if switched.by() is not None:  # a block, whose end gives back what is under it
            later.discard(switched.key)
        elif switched.key in later:
            continue
        else:
            later.add(switched.key)
        kept.append(switched)
    op.switches = tuple(reversed(kept))
    state = {s.key: s.enabled for s in op.switches}
    disabled = frozenset(key for key, enabled in state.items() if not enabled)
    if disabled != op.disabled:
        op.disabled = disabled
        op.changed()


__all__ = ["KernelSwitch"]
