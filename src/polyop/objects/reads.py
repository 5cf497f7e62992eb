"""What is looked at twice: whether it is as it was, and how it is put back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from inspect import getattr_static
from types import FunctionType, ModuleType
from typing import Any

from polyop.dispatch.bits import SUBCLASS
from polyop.objects.held import Held, agree, held, kind_of
from polyop.objects.scopes import GONE, Fields
from polyop.tensor.subclass import inner_tensors, is_traceable_wrapper_subclass
from polyop.tensor.tensor import Tensor
from polyop.tree.same import alike, exact

#: The containers that a fake object may show.
CONTAINERS = (list, dict, set)


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
            return content is None or now.keys == content or alike(content_of(now), content)
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
        return self.scope.keys == self.content or alike(content_of(self.scope), self.content)

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
        """Tell whether there are no more and no fewer, and they are where they were."""
        owner = self.owner
        if type(owner) is not self.kind or owner.__dict__ is not self.scope:
            return False
        return self.scope.keys() == self.names

    untouched = same

    def filled(self) -> bool:
        """Tell whether there are only more, which the class keeps there as a cache."""
        new = self.scope.keys() - self.names
        found = (getattr_static(self.kind, name, None) for name in new)
        kept = self.scope.keys() >= self.names and type(self.owner) is self.kind
        return kept and all(isinstance(member, cached_property) for member in found)

    def restore(self) -> None:
        """Take away those that are new."""
        if type(self.owner) is not self.kind:
            self.owner.__class__ = self.kind
        if self.owner.__dict__ is not self.scope:
            self.owner.__dict__ = self.scope
        for name in self.scope.keys() - self.names:
            del self.scope[name]


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
class Members:
    """What a class has itself, and where it looks further.

    Attributes:
        scope: the class.
        others: the names that are not looked at.
        bases: its method resolution order.
        keys: the names that it has, in order.
        content: what they stand for, as it lies there.
    """

    scope: type
    others: frozenset[str]
    bases: tuple[type, ...]
    keys: tuple[str, ...]
    content: tuple[Any, ...]
    name: str = ""

    def same(self) -> bool:
        """Tell whether it has the same, in the same order, and the same bases."""
        if self.scope.__mro__ != self.bases:
            return False
        own: Any = vars(self.scope)
        if tuple(own) != self.keys:
            own = members_of(self.scope, self.others)
            if tuple(own) != self.keys:
                return False
        return agree(tuple(own.values()), self.content)

    untouched = same

    def restore(self) -> None:
        """Give it what it had."""
        kept = dict(zip(self.keys, self.content, strict=True))
        now = members_of(self.scope, self.others)
        for name in now.keys() - kept.keys():
            type.__delattr__(self.scope, name)
        for name, value in kept.items():
            if now.get(name, GONE) is not value:
                type.__setattr__(self.scope, name, value)


@dataclass(frozen=True, slots=True)
class Absent:
    """Names that code has, and a module has not."""

    scope: dict[str, Any]
    names: frozenset[str]
    name: str = ""

    def same(self) -> bool:
        """Tell whether it still has none of them."""
        return self.scope.keys().isdisjoint(self.names)

    def untouched(self) -> bool:
        """Tell whether it has none but modules, which stay once they are imported."""
        return not self._new()

    def restore(self) -> None:
        """Take away those that are new."""
        for name in self._new():
            del self.scope[name]

    def _new(self) -> list[str]:
        found = self.scope.keys() & self.names
        return [name for name in found if not isinstance(self.scope[name], ModuleType)]


@dataclass(frozen=True, slots=True)
class Cache:
    """A function of `functools.lru_cache`: what a capture leaves in it is forgotten.

    Attributes:
        table: what it keeps, by its keys.
        keys: the ids of those.
    """

    scope: Any
    table: dict[Any, Any]
    keys: frozenset[int]
    name: str = "cache"

    def same(self) -> bool:
        """Tell whether a program may rely on it: what it holds follows from its arguments."""
        return True

    def untouched(self) -> bool:
        """Tell whether nothing has come into it."""
        return not self._new()

    def filled(self) -> bool:
        """Tell that it only became fuller."""
        return True

    def restore(self) -> None:
        """Forget what has come into it, which may be fakes."""
        for key in self._new():
            self.table.pop(key, None)

    def _new(self) -> list[Any]:
        return [key for key in list(self.table) if id(key) not in self.keys]


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
    return Read(scope, name, value, content_of(value) if isinstance(value, Tensor) else None)


def cache(function: Any) -> Cache:
    """Look at a function of `lru_cache`; the table that it keeps has no name."""
    found = (x for x in gc.get_referents(function) if type(x) is dict and x is not vars(function))
    table = next(found, {})
    return Cache(function, table, frozenset(map(id, table)))


def kept(tensor: Tensor) -> Kept:
    """Look at a tensor in a container."""
    return Kept(tensor, content_of(tensor))


def value_in(scope: Any, name: str) -> Any:
    """Give what a name has, or `GONE`."""
    if isinstance(scope, (dict, Fields)):
        return scope.get(name, GONE)
    try:
        return scope.cell_contents
    except ValueError:
        return GONE


def members(cls: type, others: frozenset[str]) -> Members:
    """Look at a class."""
    lazy = {"__slotnames__", "__annotations__"} - vars(cls).keys()  # which Python makes when asked
    others |= lazy
    own = members_of(cls, others)
    return Members(cls, others, cls.__mro__, tuple(own), tuple(own.values()))


def members_of(cls: type, others: frozenset[str]) -> dict[str, Any]:
    """Give what a class has itself, but for some names."""
    ours = "_polyop_"  # what is kept there on users' classes
    return {k: v for k, v in vars(cls).items() if k not in others and not k.startswith(ours)}


def content_of(value: Tensor) -> Any:
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
