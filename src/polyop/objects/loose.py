"""What a program keeps of the reads of its function: the same questions, by weak references."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from polyop.objects.guards import guards_of
from polyop.objects.held import Held, Kind
from polyop.objects.made_of import data_of
from polyop.objects.reads import (
    Cache,
    Code,
    Kept,
    Members,
    Names,
    Read,
    content_of,
    members_of,
    value_in,
)
from polyop.objects.scopes import GONE, Fields, Referent, Slot
from polyop.objects.state import State
from polyop.objects.weakly import Forms, Lot, Note, Weak, fits, has_weak, holds, is_itself

#: What no read has seen: the owner is gone.
_DEAD = object()


class Guard(Protocol):
    """A question that a program asks before it runs."""

    def same(self) -> bool:
        """Tell whether what the program relies on is as it was."""


@dataclass(frozen=True, slots=True)
class Named:
    """A name, and the form of its value."""

    scope: Any
    name: str
    form: Any
    content: Any

    def same(self) -> bool:
        """Tell whether the name still has the value."""
        scope: Any = self.scope
        form: Any = self.form
        now = scope.get(self.name, GONE) if scope.__class__ is dict else value_in(scope, self.name)
        if form.__class__ is Weak:
            found: Any = form()
            if found is None or found is not now:
                return False
            content = self.content
            return content is None or found.keys == content or fits(content_of(found), content)
        return now is form or fits(now, form)


@dataclass(frozen=True, slots=True)
class Owned:
    """The attributes of an object, by the object.

    Attributes:
        keys: their names, in order.
        values: what they have.
        tensors: the places of tensors, and what these are made of.
    """

    owner: Weak
    kind: type
    keys: tuple[str, ...]
    values: Lot
    tensors: tuple[tuple[int, Any], ...]

    def same(self) -> bool:
        """Tell whether it has the same ones, with the same values."""
        owner = self.owner()
        if owner is None or type(owner) is not self.kind:
            return False
        own = owner.__dict__
        if tuple(own) == self.keys:
            now = tuple(own.values())
        elif len(own) == len(self.keys) and own.keys() == set(self.keys):
            now = tuple([own[name] for name in self.keys])
        else:
            return False
        if not self.values.same(now):
            return False
        for i, content in self.tensors:
            if now[i].keys != content and not fits(content_of(now[i]), content):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Runs:
    """What a function runs, by the function."""

    scope: Weak
    code: Any
    defaults: Any
    kwdefaults: Any
    has_more: bool

    def same(self) -> bool:
        """Tell whether it is the function that it was."""
        fn = self.scope()
        return (
            fn is not None
            and fn.__code__ is self.code
            and fn.__defaults__ is self.defaults
            and fn.__kwdefaults__ is self.kwdefaults
            and (self.has_more or not fn.__dict__)
        )


@dataclass(frozen=True, slots=True)
class Acts:
    """Who acts on a tensor, by the tensor."""

    scope: Weak
    content: Any

    def same(self) -> bool:
        """Tell whether the same do."""
        now = self.scope()
        if now is None:
            return False
        return now.keys == self.content or fits(content_of(now), self.content)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a container holds, by the container."""

    scope: Weak
    kind: Kind
    keys: Any
    content: Any

    def same(self) -> bool:
        """Tell whether it holds the same."""
        now = self.scope()
        return now is not None and holds(now, self.kind, self.keys, self.content)


@dataclass(frozen=True, slots=True)
class Facts:
    """What an opaque object is guarded by, by the object."""

    scope: Weak
    guards: tuple[Any, ...]

    def same(self) -> bool:
        """Tell whether that is as it was."""
        now = self.scope()
        return now is not None and guards_of(now) == self.guards


@dataclass(frozen=True, slots=True)
class Class:
    """What a class has itself, and where it looks further, by the class."""

    scope: Weak
    others: frozenset[str]
    bases: Lot
    keys: tuple[str, ...]
    content: Lot

    def same(self) -> bool:
        """Tell whether it has the same, in the same order, and the same bases."""
        cls = self.scope()
        if cls is None or not self.bases.same(cls.__mro__):
            return False
        own: Any = vars(cls)
        if tuple(own) != self.keys:
            own = members_of(cls, self.others)
        return tuple(own) == self.keys and self.content.same(tuple(own.values()))


class Loose(Fields):
    """The attributes of an object, by the object."""

    __slots__ = ()

    def get(self, name: str, default: Any) -> Any:
        """Give an attribute."""
        owner = self.owner()
        return _DEAD if owner is None else Fields(owner).get(name, default)


class LooseSlot(Slot):
    """A slot of an object, by the object."""

    __slots__ = ()

    def get(self, name: str, default: Any) -> Any:
        """Give what is in it."""
        owner = self.owner()
        if owner is None:
            return _DEAD
        try:
            return self.member.__get__(owner)
        except AttributeError:
            return default


class LooseCell(Fields):
    """A variable that a function closes over, by the function."""

    __slots__ = ("number",)

    def __init__(self, owner: Any, number: int) -> None:
        super().__init__(owner)
        self.number = number

    def get(self, name: str, default: Any) -> Any:
        """Give what the variable has."""
        owner = self.owner()
        return _DEAD if owner is None else value_in(owner.__closure__[self.number], name)


class Loosened(NamedTuple):
    """Guards, and what they hold weakly."""

    guards: tuple[Guard, ...]
    weak: tuple[Weak, ...]


def loosened(reads: Iterable[Any], fn: Any, note: Note) -> Loosened:
    """Make guards of what a walk found.

    Args:
        reads: what it found.
        fn: the function, which lasts longer than its programs.
        note: is told that something died that a guard is about.
    """
    found = tuple(reads)
    forms = Forms((one for one in found if isinstance(one, Held)), note)
    named = (one for one in found if isinstance(one, Names) and has_weak(one.kind))
    owners: dict[int, dict[str, Read]] = {id(one.scope): {} for one in named}
    for one in found:
        if isinstance(one, Read) and id(one.scope) in owners:
            owners[id(one.scope)][one.name] = one
    others = (one.scope for one in found if isinstance(one, Code) and one.scope is not fn)
    cells = {
        id(cell): LooseCell(forms.hold(other), i)
        for other in others
        for i, cell in enumerate(other.__closure__ or ())
    }
    guards: list[Guard] = []
    for one in found:
        if isinstance(one, Names) and id(one.scope) in owners:
            guards.append(_owned(one, owners[id(one.scope)], forms))
        elif isinstance(one, Read) and id(one.scope) not in owners:
            weakly = isinstance(one.scope, Referent) and one.value is not None
            form = forms.hold(one.value) if weakly else forms.of(one.value)
            content = forms.of(one.content)
            scope = cells.get(id(one.scope)) or _scope(one.scope, forms)
            guards.append(Named(scope, one.name, form, content))
        elif isinstance(one, Code) and one.scope is fn:
            guards.append(one)
        elif not isinstance(one, (Held, Read, Cache)):
            guards.append(_loose(one, forms))  # what a cache holds follows from its arguments
    unboxed = [one for one in found if isinstance(one, Held) and id(one.scope) not in forms.boxed]
    guards += [_contents(one, forms) for one in unboxed]
    return Loosened(tuple(guards), tuple(forms.weak))


def _owned(one: Names, reads: Mapping[str, Read], forms: Forms) -> Guard:
    rows = [reads[name] for name in one.scope if name in reads]
    tensors = ((i, x.content) for i, x in enumerate(rows) if x.content is not None)
    return Owned(
        forms.hold(one.owner),
        one.kind,
        tuple([x.name for x in rows]),
        forms.lot(tuple([x.value for x in rows])),
        tuple((i, forms.of(content)) for i, content in tensors),
    )


def _scope(scope: Any, forms: Forms) -> Any:
    if type(scope) not in _LOOSE or not has_weak(type(scope.owner)):
        return scope
    owner = forms.hold(scope.owner)
    return LooseSlot(owner, scope.member) if isinstance(scope, Slot) else Loose(owner)


_LOOSE = (Fields, Slot)


def _loose(one: Any, forms: Forms) -> Guard:
    if isinstance(one, Code):
        fn = forms.hold(one.scope)
        return Runs(fn, one.code, one.defaults, one.kwdefaults, one.has_more)
    if isinstance(one, Kept):
        return Acts(forms.hold(one.scope), forms.of(one.content))
    if isinstance(one, State) and has_weak(type(one.scope)):
        return Facts(forms.hold(one.scope), one.guards)
    if isinstance(one, Members) and _has_data(one.scope):
        content, bases = forms.members(one.scope, one.content), forms.lot(one.bases)
        return Class(forms.hold(one.scope), one.others, bases, one.keys, content)
    return one  # type: ignore[no-any-return]


def _has_data(cls: type) -> bool:
    """Tell whether a class has more than code, which is few, and lasts as it does."""
    data = [vars(cls)[name] for name in data_of(cls)]
    return any(isinstance(value, tuple) or is_itself(value) for value in data)


def _contents(one: Held, forms: Forms) -> Guard:
    if not has_weak(type(one.scope)):
        return one
    keys, content = forms.inside(one)
    return Contents(forms.hold(one.scope), one.kind, keys, content)
