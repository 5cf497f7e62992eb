"""Infra modes: those that a compiler enters, each in a slot of its own behind all user modes.

A slot has one mode; a second one takes the place until it is left. polyop's
own tracer, fake mode and functionalization are layers, which is faster, and
stand in the word by name; a mode that an extender writes stands in
`Word.infra`. Either way the slot is one, so entering one puts out the other.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from polyop.dispatch.context import Word, word
from polyop.errors import ModeError


class ModeKey(IntEnum):
    """The slots, in the order in which they act (S162)."""

    FUNCTIONAL = 0
    PROXY = 1
    FAKE = 2


#: Where polyop's own infra mode of each slot stands in the word.
FIELD = {ModeKey.FUNCTIONAL: "functional", ModeKey.PROXY: "tracer", ModeKey.FAKE: "fake"}


def with_mode(now: Word, mode: Any) -> Word:
    """Give a word with one more mode: user modes go on the stack, infra modes into their slot.

    Raises:
        ModeError: an infra mode without a slot.
    """
    if not mode.is_infra_mode():
        return now.but(modes=(*now.modes, mode))
    key = slot_of(mode)
    slots = list(now.infra or (None, None, None))
    slots[key] = mode
    return now.but(infra=tuple(slots), **{FIELD[key]: None})


def slot_of(mode: Any) -> ModeKey:
    """Give the slot of an infra mode."""
    key = getattr(mode, "mode_key", None)
    if not isinstance(key, ModeKey):
        raise ModeError(
            f"{type(mode).__name__} is an infra mode without a slot",
            declared=", ".join(f"ModeKey.{key.name}" for key in ModeKey),
            seen=f"mode_key = {key!r}",
            fix="give its class the attribute mode_key",
        )
    return key


def infra_mode(key: ModeKey) -> Any:
    """Give what stands in a slot: an infra mode, or polyop's own tracer or fake mode, or None."""
    now = word()
    entered = now.infra[key] if now.infra else None
    return getattr(now, FIELD[key]) if entered is None else entered
