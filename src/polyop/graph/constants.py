"""Constants among the arguments: which are literals, and when two are the same."""

from __future__ import annotations

from collections.abc import Hashable
from math import isfinite
from typing import Any

from polyop.graph.node import Node, parts_of
from polyop.schema.opaque import is_value

#: Types whose equal values, class for class, cannot be told apart.
EXACT = frozenset({int, bool, str, bytes, type(None), type(Ellipsis)})
#: Types where equality hides a sign: `0.0 == -0.0`.
BY_TEXT = frozenset({float, complex})


def is_literal(value: Any) -> bool:
    """Say whether Python can write a value as it is, and read the same back."""
    return type(value) in EXACT or (type(value) is float and isfinite(value))


def is_scalar(value: Any) -> bool:
    """Say whether a value is immutable and holds nothing else."""
    return type(value) in EXACT or type(value) in BY_TEXT


def key_of(value: Any) -> Hashable:
    """Give a key that two arguments share only if they are interchangeable.

    The class is in it, since `1 == 1.0 == True`. An object of a class that is
    not known here is the same only as itself: its `==` may mean anything.
    """
    kind = type(value)
    if kind is Node:
        return value  # type: ignore[no-any-return]
    if kind in EXACT:
        return (kind, value)
    if kind in BY_TEXT:
        return (kind, repr(value))
    if isinstance(value, dict):
        names = tuple(key_of(k) for k in value)
        return (kind, names, tuple(key_of(v) for v in value.values()))
    if isinstance(value, (tuple, list, slice)):
        return (kind, tuple(key_of(v) for v in parts_of(value)))
    if is_value(value):
        return (kind, value)  # its class says that equality decides (SPEC S183)
    return (kind, id(value))
