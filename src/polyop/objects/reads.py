"""Names and containers that are looked at twice: whether they are as they were, and put back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from polyop.dispatch.bits import SUBCLASS
from polyop.tensor.subclass import inner_tensors, is_traceable_wrapper_subclass
from polyop.tensor.tensor import Tensor

#: Values of these types are compared; others count as the same while they are the same object.
PLAIN = (int, float, complex, str, bytes, bool, type(None), tuple)
CONTAINERS = (list, dict, set)
#: The longest container that is looked at.
LONGEST = 100
GONE = object()


class Fields:
    """The attributes of what keeps them in no dict of its own: an object with slots, a class."""

    __slots__ = ("owner",)

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def get(self, name: str, default: Any) -> Any:
        """Give an attribute."""
        return getattr(self.owner, name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self.owner, name, value)

    def pop(self, name: str, default: Any) -> None:
        """Take an attribute away."""
        if hasattr(self.owner, name):
            delattr(self.owner, name)


@dataclass(frozen=True, slots=True)
class Read:
    """One name that the code reads: where it is found, what it was, and what that held."""

    scope: Any  # a dict, or a cell
    name: str
    value: Any
    content: Any = None

    def same(self) -> bool:
        """Tell whether the name still has the value."""
        now = value_in(self.scope, self.name)
        if now is self.value:
            return self.content is None or _alike(_content(now), self.content)
        return _alike(now, self.value) if isinstance(now, PLAIN) else False

    untouched = same

    def restore(self) -> None:
        """Give the name what it had."""
        if self.same():
            return
        if isinstance(self.value, CONTAINERS):
            _refill(self.value, self.content)
        if not isinstance(self.scope, (dict, Fields)):
            self.scope.cell_contents = self.value
        elif self.value is GONE:
            self.scope.pop(self.name, None)
        else:
            self.scope[self.name] = self.value


@dataclass(frozen=True, slots=True)
class Names:
    """The names of an object's attributes."""

    scope: dict[str, Any]
    names: frozenset[str]
    name: str = ""

    def same(self) -> bool:
        """Tell whether there are no more and no fewer."""
        return self.scope.keys() == self.names

    untouched = same

    def restore(self) -> None:
        """Take away those that are new."""
        for name in self.scope.keys() - self.names:
            del self.scope[name]


def read(scope: Any, name: str) -> Read:
    """Look at a name."""
    value = value_in(scope, name)
    return Read(scope, name, value, _content(value))


def value_in(scope: Any, name: str) -> Any:
    """Give what a name has, or `GONE`."""
    if isinstance(scope, (dict, Fields)):
        return scope.get(name, GONE)
    try:
        return scope.cell_contents
    except ValueError:
        return GONE


def _content(value: Any) -> Any:
    """Give what may change in a value while it stays the same object."""
    if isinstance(value, Tensor):
        return (value.keys, *_inner(value)) if value.keys & SUBCLASS else value.keys
    if type(value) not in CONTAINERS or len(value) > LONGEST:
        return len(value) if type(value) in CONTAINERS else None
    if isinstance(value, dict):
        return (*value, *value.values())
    return tuple(value)


def _inner(value: Any) -> list[Any]:
    """List what a traceable wrapper is made of."""
    if not is_traceable_wrapper_subclass(value):
        return []
    context = value.__tensor_flatten__()[1]
    return [context, *[y for _, x in inner_tensors(value) for y in (x, *_inner(x))]]


def _alike(now: Any, was: Any) -> bool:
    """Tell whether two values are interchangeable: 1, 1.0 and True are not, nor 0.0 and -0.0."""
    if now is was:
        return True
    if type(now) is not type(was) or not isinstance(now, PLAIN):
        return False
    if isinstance(now, tuple):
        return len(now) == len(was) and all(map(_alike, now, was))
    return repr(now) == repr(was) if isinstance(now, (float, complex)) else bool(now == was)


def _refill(container: Any, content: Any) -> None:
    if isinstance(content, int):
        return  # too long to be kept
    container.clear()
    if isinstance(container, dict):
        half = len(content) // 2
        container.update(zip(content[:half], content[half:], strict=True))
    elif isinstance(container, set):
        container.update(content)
    else:
        container.extend(content)


def containers(value: Any) -> Iterator[Read]:
    """Look at a list, dict or set, and at those in it."""
    waiting = [value]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if type(current) not in (*CONTAINERS, tuple) or id(current) in seen:
            continue
        seen.add(id(current))
        if type(current) in CONTAINERS:
            yield read({"itself": current}, "itself")
        if len(current) <= LONGEST:
            waiting += current.values() if isinstance(current, dict) else current
