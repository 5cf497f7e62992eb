"""Whether a function may tell two equal tensors from one that it was given twice.

Python lets nobody see an `is`. So the code that the function can reach is looked at: a
comparison with what is no constant and no name of the module counts, and a call of `id`.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import CodeType
from typing import Any

from polyop.objects.environment import environment
from polyop.objects.names import named
from polyop.objects.reads import Code

#: The functions of the module `operator` that compare objects themselves.
_COMPARING = frozenset({"is_", "is_not"})
#: What puts a class, a module's value, or `None` on the other side.
_FIXED = frozenset({"LOAD_CONST", "LOAD_GLOBAL", "LOAD_NAME"})


def compares_identity(fn: Callable[..., Any], leaves: Iterable[Any] = ()) -> bool:
    """Tell whether a function, or one that it calls, may ask whether two tensors are one.

    Args:
        fn: the function.
        leaves: its arguments; the code of those that are objects or functions counts too.
    """
    codes = [one.code for one in environment(fn, leaves) if isinstance(one, Code)]
    return any(_compares(code) for code in codes if isinstance(code, CodeType))


@lru_cache(maxsize=4096)
def _compares(code: CodeType) -> bool:
    if "id" in named(code).variables or not _COMPARING.isdisjoint(code.co_names):
        return True
    other = ""
    for step in dis.get_instructions(code):
        if step.opname == "IS_OP" and other not in _FIXED:
            return True
        if step.opname != "LOAD_ATTR":  # of a module, or of what is an argument
            other = step.opname
    return any(_compares(inner) for inner in code.co_consts if isinstance(inner, CodeType))
