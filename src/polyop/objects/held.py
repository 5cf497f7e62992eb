"""Containers that are looked at twice: whether they hold what they held, and put back.

What a class makes of its iteration is not asked: the container's own is.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from operator import is_
from types import MappingProxyType
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from polyop.tree.same import alike

#: The longest container, and the most bytes, that are looked at.
LONGEST = 10_000
MOST_BYTES = 1 << 20


class Kind(NamedTuple):
    """How a kind of container is read and filled.

    Attributes:
        values: gives what it holds, in order.
        fill: takes a container and values, and makes it hold these.
        keys: gives the keys of a mapping.
    """

    values: Callable[[Any], Any]
    fill: Callable[[Any, Any], None]
    keys: Callable[[Any], Any] | None = None


def _mapping(cls: Any) -> Kind:
    def fill(container: Any, pairs: Any) -> None:
        cls.clear(container)
        for key, value in pairs:
            cls.__setitem__(container, key, value)

    return Kind(lambda x: tuple(cls.values(x)), fill, lambda x: tuple(cls.keys(x)))


def _sequence(cls: Any, extend: Any) -> Kind:
    def fill(container: Any, values: Any) -> None:
        cls.clear(container)
        extend(container, values)

    return Kind(lambda x: tuple(cls.__iter__(x)), fill)


def _fill_array(container: Any, values: Any) -> None:
    del container[:]
    container.extend(values)


def _leave(proxy: Any, pairs: Any) -> None:
    """Leave a proxy: what is behind it is written elsewhere."""


class _Bits:
    """The elements of an array, which differ where their bits do, and how it may be used."""

    __slots__ = ("array", "flags")

    def __init__(self, found: Any) -> None:
        self.array = found.copy()
        self.flags = found.flags.num

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Bits)
            and self.flags == other.flags
            and self.array.dtype == other.array.dtype
            and self.array.shape == other.array.shape
            and self.array.tobytes() == other.array.tobytes()
        )

    __hash__ = None  # type: ignore[assignment]


def _fill_bits(container: Any, was: Any) -> None:
    writeable = bool(was.flags & _WRITEABLE)
    if writeable:
        container.flags.writeable = True
    if container.flags.writeable:
        container[...] = was.array
    container.flags.writeable = writeable


_WRITEABLE = 0x400
_KINDS: dict[type, Kind] = {
    OrderedDict: _mapping(OrderedDict),
    dict: _mapping(dict),
    list: _sequence(list, list.extend),
    set: _sequence(set, set.update),
    deque: _sequence(deque, deque.extend),
    array: Kind(tuple, _fill_array),
    bytearray: Kind(bytes, lambda x, v: x.__setitem__(slice(None), v)),
    MappingProxyType: Kind(lambda x: tuple(x.values()), _leave, lambda x: tuple(x.keys())),
    memoryview: Kind(bytes, lambda x, v: x.cast("B").__setitem__(slice(None), v)),
}
_BY_CLASS: dict[type, Kind | None] = dict(_KINDS)
_BYTES = Kind(_Bits, _fill_bits)
_OBJECTS = Kind(lambda x: tuple(x.flat), lambda x, v: x.flat.__setitem__(slice(None), v))


def kind_of(value: Any) -> Kind | None:
    """Give how a container is read, or None for what is none."""
    cls = type(value)
    if cls in _BY_CLASS:
        return _BY_CLASS[cls]
    if isinstance(value, np.ndarray):
        return _OBJECTS if value.dtype.hasobject else _BYTES
    return next((kind for base, kind in _KINDS.items() if issubclass(cls, base)), None)


def is_short(value: Any, longest: int = LONGEST) -> bool:
    """Tell whether a container is short enough to be looked at."""
    if isinstance(value, (np.ndarray, memoryview)):
        return value.nbytes <= MOST_BYTES
    return len(value) <= (MOST_BYTES if isinstance(value, (bytearray, array)) else longest)


@dataclass(frozen=True, slots=True)
class Held:
    """A container, and what it held."""

    scope: Any
    kind: Kind
    keys: tuple[Any, ...] | None
    content: Any
    name: str = ""

    def same(self) -> bool:
        """Tell whether it holds the same."""
        kind = self.kind
        now = kind.values(self.scope)
        if now.__class__ is not tuple:
            return bool(now == self.content)
        if not agree(now, self.content):
            return False
        return self.keys is None or agree(kind.keys(self.scope), self.keys)  # type: ignore[misc]

    untouched = same

    def filled(self) -> bool:
        """Tell whether it is a mapping by weak keys, as caches are, and only has more."""
        if self.keys is None or self.kind.keys is None:
            return False
        keys, values = self.kind.keys(self.scope), self.kind.values(self.scope)
        count = len(self.keys)
        kept = agree(keys[:count], self.keys) and agree(values[:count], self.content)
        return kept and all(isinstance(key, ref) for key in keys)

    def restore(self) -> None:
        """Fill it with what it held."""
        if self.same():
            return
        pairs = self.content
        if self.keys is not None:
            pairs = zip(self.keys, self.content, strict=True)
        self.kind.fill(self.scope, pairs)


def held(container: Any, name: str = "") -> Held:
    """Look at a container."""
    kind = kind_of(container)
    assert kind is not None
    keys = None if kind.keys is None else kind.keys(container)
    return Held(container, kind, keys, kind.values(container), name)


def agree(now: tuple[Any, ...], was: tuple[Any, ...]) -> bool:
    """Tell whether values may stand for others that a program relies on."""
    if len(now) != len(was):
        return False
    return all(map(is_, now, was)) or all(map(alike, now, was))
