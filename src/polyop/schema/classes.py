"""The names under which Python classes appear in schemas.

Opaque classes and Enums are schema types by name (SPEC S6, S183). The
registrations come from higher floors; text and annotations only look here.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

_by_name: dict[str, type] = {}
_names: dict[type, str] = {}
_forget: list[Callable[[], None]] = []
#: Classes whose objects stand for opaque objects in traces, and say that they are such.
STAND_INS: set[type] = set()


def register_class_name(name: str, cls: type) -> None:
    """Make `name` the schema type of `cls`; the last registration of a name wins."""
    _names.pop(_by_name.get(name, cls), None)
    _by_name[name] = cls
    _names[cls] = name
    # Text that was read before may name another class now.
    for forget in _forget:
        forget()


def class_named(name: str) -> type | None:
    """Give the class of a schema type, or None."""
    return _by_name.get(name)


def class_names() -> tuple[str, ...]:
    """Give every registered name."""
    return tuple(_by_name)


def name_of_class(cls: type) -> str | None:
    """Give the schema type of a class, or None; an Enum has one by itself."""
    if cls not in _names and issubclass(cls, Enum) and len(cls):
        register_class_name(enum_name(cls), cls)
    return _names.get(cls)


def enum_name(cls: type) -> str:
    """Name an Enum by its module and its place there."""
    return f"{cls.__module__}.{cls.__qualname__}".replace("<locals>.", "")


def register_stand_in(cls: type) -> None:
    """Let objects of `cls` be known as fakes of opaque objects."""
    STAND_INS.add(cls)


def on_change(forget: Callable[[], None]) -> None:
    """Call `forget` whenever a name gets a class."""
    _forget.append(forget)
