"""Where names are found that are in no dict: how they are read, and written back."""

from __future__ import annotations

import abc
import decimal
from typing import Any

GONE = object()
#: Gives what was registered with an abstract class, first, as a set of weak references.
_REGISTRY: Any = vars(abc).get("_get_dump", lambda _: [()])


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


class Slot(Fields):
    """A slot of an object, as its class has it."""

    __slots__ = ("member",)

    def __init__(self, owner: Any, member: Any) -> None:
        super().__init__(owner)
        self.member = member

    def get(self, name: str, default: Any) -> Any:
        """Give what is in it."""
        try:
            return self.member.__get__(self.owner)
        except AttributeError:
            return default

    def __setitem__(self, name: str, value: Any) -> None:
        self.member.__set__(self.owner, value)

    def pop(self, name: str, default: Any) -> None:
        """Empty it."""
        self.member.__delete__(self.owner)


class Variable(Fields):
    """The value of a context variable."""

    __slots__ = ()

    def get(self, name: str, default: Any) -> Any:
        """Give it, or what the variable has for want of one."""
        try:
            return self.owner.get()
        except LookupError:
            return default

    def __setitem__(self, name: str, value: Any) -> None:
        self.owner.set(value)


class Referent(Fields):
    """What a weak reference is of."""

    __slots__ = ()

    def get(self, name: str, default: Any) -> Any:
        """Give it, or None once it is gone."""
        return self.owner()

    def __setitem__(self, name: str, value: Any) -> None:
        """Leave it: nobody gives a reference another one."""


class Arithmetic(Fields):
    """How decimal numbers are rounded, and what is an error."""

    __slots__ = ()

    def get(self, name: str, default: Any) -> Any:
        """Give all of that."""
        now = decimal.getcontext()
        return *(getattr(now, x) for x in _ROUNDING), tuple(now.traps.values())

    def __setitem__(self, name: str, value: Any) -> None:
        now = decimal.getcontext()
        *rounding, traps = value
        for x, was in zip(_ROUNDING, rounding, strict=True):
            setattr(now, x, was)
        now.traps.update(zip(now.traps, traps, strict=True))


_ROUNDING = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
ARITHMETIC = Arithmetic(None)


class Kin(Fields):
    """The classes that count as a class's own."""

    __slots__ = ()

    def get(self, name: str, default: Any) -> Any:
        """Give those that derive from it, or those that were registered with it."""
        if name == "__subclasses__":
            return tuple(type.__subclasses__(self.owner))
        return tuple(x() for x in sorted(_REGISTRY(self.owner)[0], key=hash))

    def __setitem__(self, name: str, value: Any) -> None:
        """Leave them: a class that the function makes goes by itself."""
