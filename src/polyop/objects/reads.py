"""What is looked at twice: whether it is as it was, and how it is put back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

from polyop.dispatch.bits import SUBCLASS
from polyop.objects.held import Held, held, kind_of
from polyop.tensor.subclass import inner_tensors, is_traceable_wrapper_subclass
from polyop.tensor.tensor import Tensor
from polyop.tree.same import alike, exact

#: The containers that a fake object may show.
CONTAINERS = (list, dict, set)
GONE = object()


class Fields:
    """The attributes of what keeps them in no dict of its own: an object with slots, a class."""

    __slots__ = ("owner",)

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def get(self, name: str, default: Any) -> Any:
        """Give an attribute."""
        try:
            return getattr(self.owner, name, default)
        except Exception:  # a `__getattr__` may raise anything
            return default

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self.owner, name, value)

    def pop(self, name: str, default: Any) -> None:
        """Take an attribute away."""
        if hasattr(self.owner, name):
            delattr(self.owner, name)


class Variable(Fields):
    """The value of a context variable."""

    __slots__ = ()

    def get(self, name: str, default: Any) -> Any:
        """Give it."""
        return self.owner.get(default)

    def __setitem__(self, name: str, value: Any) -> None:
        self.owner.set(value)


@dataclass(frozen=True, slots=True)
class Read:
    """One name that the code reads: where it is found, what it was, and what a tensor was."""

    scope: Any  # a dict, a cell, or `Fields`
    name: str
    value: Any
    content: Any = None

    def same(self) -> bool:
        """Tell whether the name still has the value."""
        scope = self.scope
        now = scope.get(self.name, GONE) if scope.__class__ is dict else value_in(scope, self.name)
        if now is self.value:
            content = self.content
            return content is None or now.keys == content or alike(_content(now), content)
        return alike(now, self.value)

    untouched = same

    def restore(self) -> None:
        """Give the name what it had."""
        if self.same():
            return
        if not isinstance(self.scope, (dict, Fields)):
            self.scope.cell_contents = self.value
        elif self.value is GONE:
            self.scope.pop(self.name, None)
        else:
            self.scope[self.name] = self.value


@dataclass(frozen=True, slots=True)
class Kept:
    """A tensor in a container: who acts on it."""

    scope: Tensor
    content: Any
    name: str = ""

    def same(self) -> bool:
        """Tell whether the same act on it, and it is made of the same."""
        return self.scope.keys == self.content or alike(_content(self.scope), self.content)

    untouched = same

    def restore(self) -> None:
        """Leave it: what changes a tensor is refused elsewhere."""


@dataclass(frozen=True, slots=True)
class Names:
    """The class of an object, and the names of its attributes."""

    scope: dict[str, Any]
    names: frozenset[str]
    owner: Any
    kind: type
    name: str = ""

    def same(self) -> bool:
        """Tell whether there are no more and no fewer."""
        return self.scope.keys() == self.names and type(self.owner) is self.kind

    untouched = same

    def restore(self) -> None:
        """Take away those that are new."""
        for name in self.scope.keys() - self.names:
            del self.scope[name]
        if type(self.owner) is not self.kind:
            self.owner.__class__ = self.kind


@dataclass(frozen=True, slots=True)
class Code:
    """What a function runs, and what it has for arguments that it is not given."""

    scope: FunctionType
    code: Any
    defaults: Any
    kwdefaults: Any
    has_more: bool
    name: str = ""

    def same(self) -> bool:
        """Tell whether it is the function that it was."""
        fn = self.scope
        return (
            fn.__code__ is self.code
            and fn.__defaults__ is self.defaults
            and fn.__kwdefaults__ is self.kwdefaults
            and (self.has_more or not fn.__dict__)
        )

    untouched = same

    def restore(self) -> None:
        """Make it so again."""
        fn = self.scope
        fn.__code__, fn.__defaults__, fn.__kwdefaults__ = self.code, self.defaults, self.kwdefaults
        if not self.has_more:
            fn.__dict__.clear()


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a class finds for a name: a method, a property."""

    scope: type
    name: str
    value: Any

    def same(self) -> bool:
        """Tell whether it finds the same."""
        now = member_of(self.scope, self.name)
        return now is self.value or (now.__class__ is MethodType and bool(now == self.value))

    untouched = same

    def restore(self) -> None:
        """Leave it: who gives a class another method while it runs has it for good."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A function of `functools.lru_cache`: what a capture leaves in it is forgotten."""

    scope: Any
    misses: int
    name: str = "cache"

    def same(self) -> bool:
        """Tell whether a program may rely on it: what it holds follows from its arguments."""
        return True

    def untouched(self) -> bool:
        """Tell whether nothing has come into it."""
        return bool(self.scope.cache_info().misses == self.misses)

    def restore(self) -> None:
        """Forget what it holds, which may be fakes."""
        self.scope.cache_clear()


@dataclass(frozen=True, slots=True)
class Unseen:
    """What no look tells the state of: a program cannot rely on it."""

    scope: Any
    name: str
    problem: str

    def same(self) -> bool:
        """Tell that nobody knows."""
        return False

    def untouched(self) -> bool:
        """Tell that nothing is known to have changed."""
        return True

    def restore(self) -> None:
        """Do nothing: there is nothing known to restore."""


def read(scope: Any, name: str) -> Read:
    """Look at a name."""
    value = value_in(scope, name)
    return Read(scope, name, value, _content(value) if isinstance(value, Tensor) else None)


def kept(tensor: Tensor) -> Kept:
    """Look at a tensor in a container."""
    return Kept(tensor, _content(tensor))


def value_in(scope: Any, name: str) -> Any:
    """Give what a name has, or `GONE`."""
    if isinstance(scope, (dict, Fields)):
        return scope.get(name, GONE)
    try:
        return scope.cell_contents
    except ValueError:
        return GONE


def member_of(cls: type, name: str) -> Any:
    """Give what a class finds for a name, or `GONE`."""
    try:
        return getattr(cls, name, GONE)
    except Exception:  # a descriptor may raise anything
        return GONE


def _content(value: Tensor) -> Any:
    """Give what may change in a tensor while it stays the same object."""
    return (value.keys, *_inner(value)) if value.keys & SUBCLASS else value.keys


def _inner(value: Any) -> list[Any]:
    """List what a traceable wrapper is made of."""
    if not is_traceable_wrapper_subclass(value):
        return []
    context = value.__tensor_flatten__()[1]
    return [exact(context), *[y for _, x in inner_tensors(value) for y in (x, *_inner(x))]]


def containers(value: Any) -> Iterator[Held]:
    """Look at a list, dict or set, and at those in it."""
    waiting = [value]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if type(current) not in (*CONTAINERS, tuple) or id(current) in seen:
            continue
        seen.add(id(current))
        if kind_of(current) is not None:
            yield held(current)
        waiting += current.values() if isinstance(current, dict) else current
