"""The slots of rules for classes: of modes, and of tensors (S54).

A slot has a name, and classes may share theirs: those that a function makes, or that a notebook's
cell makes anew. So the name of a slot is numbered, and the class alone knows which one is its own.
"""

from __future__ import annotations

from itertools import count
from weakref import WeakKeyDictionary

from polyop.dispatch.lock import LOCK

PREFIX = "dispatch:"
_slots: WeakKeyDictionary[type, str] = WeakKeyDictionary()
_numbers = count(1)


def slot_of(cls: type) -> str | None:
    """Give the slot of the rules for a class, or None if nobody has registered any."""
    return _slots.get(cls)


def make_slot(cls: type) -> str:
    """Give the slot of the rules for a class."""
    with LOCK:
        if cls not in _slots:
            _slots[cls] = f"{PREFIX}{cls.__module__}.{cls.__qualname__}#{next(_numbers)}"
        return _slots[cls]
