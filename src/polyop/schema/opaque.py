"""What is known of opaque classes: whose objects operators take without looking into them.

A value is a constant of a program, known by equality. A reference is an input
of it: an object with a state, which only operators and its fake class know
(SPEC S183). Everyone looks here; the registrations come from `polyop.objects`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

from polyop.errors import ObjectError
from polyop.records import NamedTuple
from polyop.schema.classes import class_named, enum_name, register_class_name
from polyop.schema.model import FunctionSchema
from polyop.schema.types import BaseType, ClassType, Type, walk
from polyop.source import UNKNOWN, Source

REFERENCE = "reference"
VALUE = "value"


class MemberType(Enum):
    """What tracing does with an attribute or method of an opaque object (S184)."""

    #: Read or call it on the real object, and keep the result as a constant.
    USE_REAL = "use_real"
    #: Run it on the fake object, so that the operators in it are recorded.
    INLINED = "inlined"


class OpaqueType(NamedTuple):
    """One registered class; see `polyop.library.register_opaque_type`."""

    name: str
    kind: str
    hoist: bool = False
    guard_fn: Callable[[Any], Any] | None = None
    members: Mapping[str, MemberType] = {}
    reconstruct_fn: Callable[..., Any] | None = None
    source: Source = UNKNOWN


_registered: dict[type, OpaqueType] = {}
_known: WeakKeyDictionary[type, OpaqueType | None] = WeakKeyDictionary()
#: Classes of most arguments, which are no opaque ones.
_PLAIN = frozenset({int, float, bool, str, complex, type(None), list, tuple, dict})


def register_opaque(cls: type, found: OpaqueType) -> None:
    """Make a class a schema type; the last registration wins."""
    register_class_name(found.name, cls)
    _registered[cls] = found
    _known.clear()


def reference_classes() -> tuple[type, ...]:
    """Give the classes that are registered as references."""
    return tuple([cls for cls, found in list(_registered.items()) if found.kind == REFERENCE])


def opaque_type(cls: type) -> OpaqueType | None:
    """Give what is registered for a class, or for the nearest of its bases; Enums are values."""
    try:
        return _known[cls]
    except KeyError:
        _known[cls] = found = _find(cls)
        return found


def _find(cls: type) -> OpaqueType | None:
    found = next((_registered[base] for base in cls.__mro__ if base in _registered), None)
    if found is None and issubclass(cls, Enum):
        return OpaqueType(enum_name(cls), VALUE)
    return found


def is_reference(value: Any) -> bool:
    """Say whether a value is an object of a reference class, or a fake of one."""
    found = opaque_type(value.__class__)
    return found is not None and found.kind == REFERENCE


def is_value(value: Any) -> bool:
    """Say whether a value is an object of a value class, or a member of an Enum."""
    found = opaque_type(type(value))
    return found is not None and found.kind == VALUE


def is_input(value: Any) -> bool:
    """Say whether an object is an input of programs: a reference, or a hoisted value."""
    if value.__class__ in _PLAIN:
        return False
    found = opaque_type(value.__class__)
    return found is not None and (found.kind == REFERENCE or found.hoist)


def holds_reference(schema_type: Type) -> bool:
    """Say whether values of a type can hold objects of reference classes."""
    if schema_type.__class__ is BaseType or not _registered:
        return False
    return any(isinstance(t, ClassType) and _is_reference_type(t) for t in walk(schema_type))


def _is_reference_type(schema_type: ClassType) -> bool:
    cls = schema_type.cls or class_named(schema_type.name)
    found = None if cls is None else opaque_type(cls)
    return found is not None and found.kind == REFERENCE


def object_positions(schema: FunctionSchema) -> tuple[int, ...]:
    """Give the positions of the arguments that can hold objects of reference classes."""
    if not _registered:
        return ()
    return tuple([i for i, a in enumerate(schema.arguments) if holds_reference(a.type)])


def makes_objects(schema: FunctionSchema) -> bool:
    """Say whether a result can hold objects of reference classes."""
    return bool(_registered) and any(holds_reference(r.type) for r in schema.returns)


def python_text(value: Any) -> tuple[str, dict[str, Any]]:
    """Write an object of a value class as Python, with the names that the text uses."""
    if isinstance(value, Enum):
        cls = type(value)
        return f"{cls.__name__}.{value.name}", {cls.__name__: cls}
    found = value.__fx_repr__()
    if not isinstance(found, tuple) or [type(x) for x in found] != [str, dict]:
        raise ObjectError(
            f"{type(value).__qualname__}.__fx_repr__() does not say how to write the object",
            declared="(text, {name: class})",
            seen=f"{found!r:.80}",
        )
    text, names = found
    return text, names
