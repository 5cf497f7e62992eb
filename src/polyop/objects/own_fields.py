"""What an operator keeps on itself, told from what its user's class does: tables, and memos."""

from __future__ import annotations

import dis
from functools import cache
from types import FunctionType
from typing import Any

from polyop.dispatch.operator import OperatorBase


def own_fields(owner: Any) -> frozenset[str]:
    """Give the names that polyop's classes set on an object; none if it is no operator."""
    cls: Any = type(owner)
    return _of_class(cls) if isinstance(owner, OperatorBase) else frozenset()


@cache
def _of_class(cls: type) -> frozenset[str]:
    ours = [vars(base) for base in cls.__mro__ if base.__module__.startswith("polyop.")]
    names = {name for own in ours for name in own}
    codes = [fn.__code__ for own in ours for fn in own.values() if isinstance(fn, FunctionType)]
    found = (step for code in codes for step in dis.get_instructions(code))
    return frozenset(names.union(s.argval for s in found if s.opname == "STORE_ATTR"))
