"""Fake classes: what an author registers to stand for an opaque class in traces (S185)."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.lock import LOCK
from polyop.dispatch.registry import split_name
from polyop.errors import ObjectError, PolyopWarning, UsageError, UsageTypeError
from polyop.schema.classes import class_names, name_of_class
from polyop.schema.opaque import opaque_type
from polyop.source import Source, caller
from polyop.warn import warn_once

#: The fake classes, by `ns::Cls`.
FAKE_CLASSES: dict[str, tuple[type, Source]] = {}


def register_fake_class(qualname: Any, fake_class: type | None = None, /) -> Any:
    """Register the class that stands for an opaque class while a program is traced.

    The real class has a method `__obj_flatten__()` that gives its state as a tuple of
    (name, value) pairs. The fake one has a classmethod `__obj_unflatten__(flat)`, which makes
    an object of these pairs with fake tensors in them, and the methods that traced code calls.

    Args:
        qualname: `"ns::Cls"`, where `ns` is the end of the module's name; or the class itself.
        fake_class: the fake class; without it, the call decorates.

    Raises:
        UsageError: the name has another form.
        UsageTypeError: no class, or no classmethod `__obj_unflatten__`.
    """
    name = _qualified(qualname)

    def register(cls: type) -> type:
        _check_fake_class(name, cls)
        with LOCK:
            there = FAKE_CLASSES.get(name)
            FAKE_CLASSES[name] = (cls, caller())
        if there is not None and there[0] is not cls:
            warn_once(
                PolyopWarning,
                f"{name} had a fake class already ({there[1]}); {cls.__qualname__} replaces it",
                key=("fake class", name, cls),
            )
        return cls

    return register if fake_class is None else register(fake_class)


def _qualified(qualname: Any) -> str:
    if isinstance(qualname, type):
        name = name_of_class(qualname)
        if name is None:
            raise UsageError(
                f"{qualname.__qualname__} is no opaque class",
                fix="register it first: polyop.library.register_opaque_type(cls, typ='reference')",
            )
        return "::".join(name.rsplit(".", 1))
    if not isinstance(qualname, str):
        raise UsageTypeError("a fake class is for 'ns::Cls'", seen=repr(qualname))
    return split_name(qualname)[0]


def _check_fake_class(name: str, cls: Any) -> None:
    if not isinstance(cls, type):
        raise UsageTypeError(f"the fake class of {name} is a class", seen=repr(cls))
    if not isinstance(vars_of(cls).get("__obj_unflatten__"), classmethod):
        raise UsageTypeError(
            f"{cls.__qualname__} has no classmethod __obj_unflatten__",
            seen=repr(getattr(cls, "__obj_unflatten__", None)),
            fix="define @classmethod __obj_unflatten__(cls, flat); flat has (name, value) pairs",
        )


def vars_of(cls: type) -> dict[str, Any]:
    """Give all names of a class and its bases, as they were written."""
    return {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}


def fake_class_of(cls: type) -> type | None:
    """Find the fake class of an opaque class, by the longest part of its name that is registered.

    Raises:
        ObjectError: two opaque classes have that name.
    """
    found = opaque_type(cls)
    if found is None:
        return None
    parts = found.name.split(".")
    for i in range(len(parts) - 1):
        name = f"{'.'.join(parts[i:-1])}::{parts[-1]}"
        if name in FAKE_CLASSES:
            _check_one(name, found.name)
            return FAKE_CLASSES[name][0]
    return None


def _check_one(name: str, full: str) -> None:
    end = name.replace("::", ".")
    others = [n for n in class_names() if n != full and (n == end or n.endswith(f".{end}"))]
    if full != end and others:
        raise ObjectError(
            f"the fake class of {name} may be for {full} or for {others[0]}",
            source=FAKE_CLASSES[name][1],
            fix="give register_fake_class the class itself",
        )
