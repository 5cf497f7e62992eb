"""Keys that tell values apart which `==` does not: 1 and True, 0.0 and -0.0, a dict's orders.

A value is known by its exact type and its bits where those say all of it, and by
what it is where nobody can know.
"""

from __future__ import annotations

import datetime
from collections import OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from functools import partial
from operator import attrgetter, itemgetter
from pathlib import PurePath
from types import BuiltinMethodType, EllipsisType, MethodType, MethodWrapperType, NoneType
from typing import Any
from uuid import UUID

import numpy as np
import optree


class Same:
    """Equal to itself alone, and kept alive, so that its id stays its own."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


#: Equal values of these types are the same: a method by its object and its function.
_EQUAL = frozenset({
    bool, int, str, bytes, NoneType, EllipsisType, MethodType, BuiltinMethodType,
    MethodWrapperType,
})  # fmt: skip
#: What says all of itself in its text.
_TEXT = frozenset({
    float, complex, range, Decimal, Fraction, UUID, datetime.date, datetime.timedelta,
    datetime.timezone,
})  # fmt: skip
_SEQUENCES = frozenset({list, tuple, set, frozenset, deque})
_GETTERS = frozenset({attrgetter, itemgetter})
_MAPPINGS = frozenset({dict, OrderedDict, defaultdict})


def exact(value: Any) -> Any:
    """Give what is equal only for values of which one may be taken for the other."""
    cls = value.__class__
    if cls in _EQUAL:
        return cls, value
    if cls in _TEXT or isinstance(value, PurePath):
        return cls, repr(value)
    if cls in _SEQUENCES or (isinstance(value, tuple) and hasattr(cls, "_fields")):
        return cls, *map(exact, value), *_limit(value)
    if cls is partial and not value.__dict__:
        return cls, exact(value.func), exact(value.args), exact(value.keywords)
    if cls in _GETTERS:
        return cls, exact(value.__reduce__()[1])
    if cls in _MAPPINGS:
        factory = exact(value.default_factory) if cls is defaultdict else None
        return cls, factory, *((exact(k), exact(v)) for k, v in value.items())
    if cls is slice:
        return cls, exact(value.start), exact(value.stop), exact(value.step)
    if cls in {datetime.datetime, datetime.time}:
        return cls, repr(value), exact(value.tzinfo)
    if isinstance(value, np.generic) and value.dtype.isbuiltin and value.dtype.kind != "O":
        return cls, value.dtype.str, value.tobytes()
    return _record(value) or Same(value)


def _limit(value: Any) -> tuple[Any, ...]:
    return (value.maxlen,) if value.__class__ is deque else ()


def _record(value: Any) -> Any:
    """Give what a frozen dataclass is known by: its fields, if it has nothing else."""
    cls = value.__class__
    made = vars(cls).get("__dataclass_params__")
    if made is None or not (made.frozen and made.eq) or set(_state(value)) - set(_fields(cls)):
        return None
    return cls, *(exact(getattr(value, name)) for name in _fields(cls))


def _state(value: Any) -> Any:
    return getattr(value, "__dict__", ())


def _fields(cls: Any) -> Any:
    return cls.__dataclass_fields__


def key_orders(tree: Any) -> tuple[Any, ...]:
    """Give the keys of the dicts in a tree, in order: structures are equal without it."""
    found: list[Any] = []
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        cls = value.__class__
        if cls in _MAPPINGS:
            found.append(tuple([k if k.__class__ is str else exact(k) for k in value]))
            waiting += value.values()
        elif cls is tuple or cls is list:
            waiting += value
        elif cls not in _EQUAL and not optree.tree_is_leaf(value, namespace="polyop"):
            waiting += optree.tree_flatten_one_level(value, namespace="polyop")[0]
    return tuple(found)


def alike(now: Any, was: Any) -> bool:
    """Tell whether a value may stand for another that a program relies on."""
    if now is was:
        return True
    cls = was.__class__
    if now.__class__ is not cls:
        return False
    if cls is Same:
        return bool(now == was)
    if isinstance(was, tuple):
        return len(now) == len(was) and all(map(alike, now, was))
    # What can change in place is another one, whatever it holds now.
    return cls not in _MUTABLE and not hasattr(cls, "__dataclass_fields__") and _equal(now, was)


_MUTABLE = frozenset({list, set, deque, *_MAPPINGS})


def _equal(now: Any, was: Any) -> bool:
    return bool(exact(now) == exact(was))
