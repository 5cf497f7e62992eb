"""Guards that keep nothing alive: what is known by what it is, is held weakly.

A walk looks at values themselves. What a program keeps of it are forms: an
object is a weak reference, a list or dict the forms of what it holds, asked of
the value that is there now. A dead reference fits nothing, so no id is used
twice; who holds one is told when it dies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import GetSetDescriptorType, MemberDescriptorType, MethodType
from typing import Any, TypeAlias
from weakref import ref

from polyop.objects.held import Held, Kind, kind_of
from polyop.tree.same import Same, alike, exact

#: Is told that something died.
Note: TypeAlias = Callable[[Any], None]


class Weak(ref):  # type: ignore[type-arg]
    """A value that is known by what it is."""

    __slots__ = ()

    def same(self, now: Any) -> bool:
        """Tell whether a value is the one."""
        return now is not None and self() is now


class Gone(Exception):  # noqa: N818 - it steers, and never reaches a user
    """Something died since the guards held: another thread let go of it."""


def real(value: Any) -> Any:
    """Give a value, or what a weak reference is of.

    Raises:
        Gone: it is dead.
    """
    if value.__class__ is not Weak:
        return value
    found = value()
    if found is None:
        raise Gone
    return found


class Bound:
    """A method of an object."""

    __slots__ = ("function", "owner")

    def __init__(self, owner: Weak, function: Weak) -> None:
        self.owner, self.function = owner, function

    def same(self, now: Any) -> bool:
        """Tell whether a value is the method of the object."""
        if now.__class__ is not MethodType:
            return False
        return now.__self__ is self.owner() and now.__func__ is self.function()


class Own:
    """What a class made to reach a slot, which holds the class."""

    __slots__ = ("kind", "name")

    def __init__(self, member: Any) -> None:
        self.kind, self.name = type(member), member.__name__

    def same(self, now: Any) -> bool:
        """Tell whether a value is one; each class that has it is looked at itself."""
        return type(now) is self.kind and now.__name__ == self.name


class Row:
    """A tuple with something in it that is held weakly."""

    __slots__ = ("forms", "kind")

    def __init__(self, kind: type, forms: tuple[Any, ...]) -> None:
        self.kind: Any = kind
        self.forms = forms

    def same(self, now: Any) -> bool:
        """Tell whether a value is such a tuple."""
        if type(now) is not self.kind or len(now) != len(self.forms):
            return False
        return all(map(fits, now, self.forms))


class Lot:
    """Several values in a row, compared by ids where these say all, while nothing died."""

    __slots__ = ("dead", "deep", "forms", "ids", "own")

    def __init__(self, values: tuple[Any, ...], forms: tuple[Any, ...], dead: list[Any]) -> None:
        self.forms, self.dead = forms, dead
        self.ids = tuple(map(id, values))
        self.own = [(i, x.kind, x.name) for i, x in enumerate(forms) if x.__class__ is Own]
        self.deep = [(i, x) for i, x in enumerate(forms) if x.__class__ in _DEEP]

    def same(self, now: tuple[Any, ...]) -> bool:
        """Tell whether values may stand for these."""
        if tuple(map(id, now)) != self.ids or self.dead:  # in this order
            return len(now) == len(self.forms) and all(map(fits, now, self.forms))
        for i, kind, name in self.own:
            if now[i].__class__ is not kind or now[i].__name__ != name:
                return False
        for i, form in self.deep:  # noqa: SIM110 - a generator costs more than most of them
            if not form.same(now[i]):
                return False
        return True


class At:
    """A container that is compared where it was found first."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place

    def same(self, now: Any) -> bool:
        """Tell whether a value is the same container as there."""
        return id(now) == self.place


class Box(At):
    """A container that cannot be held weakly, where it is found.

    Another one may get its id once it is gone; what that holds is compared all the same.
    """

    __slots__ = ("cls", "content", "keys", "kind")

    def __init__(self, was: Held, keys: Any, content: Any) -> None:
        super().__init__(id(was.scope))
        self.cls, self.kind = type(was.scope), was.kind
        self.keys, self.content = keys, content

    def same(self, now: Any) -> bool:
        """Tell whether a value is the container, and holds what it held."""
        if id(now) != self.place or type(now) is not self.cls:
            return False
        return holds(now, self.kind, self.keys, self.content)


#: Forms that hold nothing of what an id belongs to, or say more than it.
_DEEP: frozenset[Any] = frozenset({Bound, Row, At, Box})
FORMS: frozenset[Any] = _DEEP | {Weak, Own}


def fits(now: Any, form: Any) -> bool:
    """Tell whether a value may stand for the one that a form was made of."""
    if form.__class__ in FORMS:
        found: bool = form.same(now)
        return found
    return now is form or alike(now, form)


def holds(container: Any, kind: Kind, keys: Any, content: Any) -> bool:
    """Tell whether a container holds what forms say."""
    now = kind.values(container)
    if now.__class__ is not tuple:
        return bool(now == content)
    if not content.same(now):
        return False
    return keys is None or keys.same(kind.keys(container))  # type: ignore[misc]


def _noting(dead: list[Any], note: Note) -> Note:
    """Make what notes that something died, before its id can be another's."""

    def died(weak: Any) -> None:
        dead.append(None)
        note(weak)

    return died


class Forms:
    """Makes forms, each list and dict once.

    Args:
        found: the containers that were looked at.
        note: is told that something died.
    """

    def __init__(self, found: Iterable[Held], note: Note) -> None:
        self.found = {id(one.scope): one for one in found}
        #: Has something in it once anything died that is held weakly.
        self.dead: list[Any] = []
        self.note = _noting(self.dead, note)
        #: What is held weakly.
        self.weak: list[Weak] = []
        #: The ids of the containers that have forms.
        self.boxed: set[int] = set()

    def hold(self, value: Any) -> Weak:
        """Hold a value weakly."""
        made = Weak(value, self.note)
        self.weak.append(made)
        return made

    def of(self, value: Any) -> Any:
        """Make the form of a value."""
        cls = type(value)
        if isinstance(value, tuple):
            forms = tuple(map(self.of, value))
            return Row(cls, forms) if any(x.__class__ in FORMS for x in forms) else value
        if cls is MethodType:
            owner, function = value.__self__, value.__func__
            weakly = has_weak(type(owner)) and has_weak(type(function))
            return Bound(self.hold(owner), self.hold(function)) if weakly else value
        if id(value) in self.boxed:
            return At(id(value))
        held = self.found.get(id(value))
        if held is not None and held.scope is value and not has_weak(cls):
            self.boxed.add(id(value))
            return Box(held, *self.inside(held))
        return self.hold(value) if is_itself(value) and has_weak(cls) else value

    def lot(self, values: tuple[Any, ...]) -> Lot:
        """Make the form of values in a row."""
        return Lot(values, tuple(map(self.of, values)), self.dead)

    def inside(self, held: Held) -> tuple[Any, Any]:
        """Make the forms of the keys of a container, and of what it holds."""
        keys = None if held.keys is None else self.lot(held.keys)
        content = held.content
        return keys, self.lot(content) if isinstance(content, tuple) else content

    def members(self, cls: type, values: tuple[Any, ...]) -> Lot:
        """Make the form of what a class has."""
        slots = (GetSetDescriptorType, MemberDescriptorType)
        own = [isinstance(x, slots) and x.__objclass__ is cls for x in values]
        forms = [Own(x) if is_own else self.of(x) for x, is_own in zip(values, own, strict=True)]
        return Lot(values, tuple(forms), self.dead)


def is_itself(value: Any) -> bool:
    """Tell whether a value is known by what it is, and not by what it says."""
    known = kind_of(value) is None and not hasattr(type(value), "__dataclass_fields__")
    return not known or exact(value).__class__ is Same


def has_weak(cls: type) -> bool:
    """Tell whether objects of a class can be held weakly."""
    return bool(getattr(cls, "__weakrefoffset__", 0))
