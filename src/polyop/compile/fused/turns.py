"""There and back: a loop over more memory than the cache holds begins where the last one ended.

One loop goes through its arrays from the front, the next, whichever it is, from the back. What the
last one touched last is in the core's cache, where all of it is not. Numbers do not depend on it.
"""

from __future__ import annotations

import ctypes

#: `turned()` tells a loop whether to begin at the back.
TURN = """\
int *polyop_turn;
static int turned(void) { return __atomic_xor_fetch(polyop_turn, 1, __ATOMIC_RELAXED); }"""
_turn = ctypes.c_int(0)


def take_turns(library: ctypes.PyDLL) -> None:
    """Have the loops of a library, whose source has `TURN`, take turns with all others."""
    ctypes.c_void_p.in_dll(library, "polyop_turn").value = ctypes.addressof(_turn)
