"""What a compiled program relies on of an opaque object (S183).

With a `guard_fn`, what that gives. Else what tracing may have read: the members
that are read on the real object, and the state that its fake was made of.
"""

from __future__ import annotations

from typing import Any

from polyop.objects.fake_classes import fake_class_of
from polyop.objects.fakes import flat_form, stays_real
from polyop.schema.opaque import REFERENCE, MemberType, OpaqueType, opaque_type
from polyop.tensor.tensor import Tensor


def guards_of(value: Any) -> tuple[Any, ...]:
    """Give the facts of an object, as nested tuples of text and numbers."""
    found = opaque_type(type(value))
    assert found is not None
    if found.guard_fn is not None:
        return tuple(fact(v) for v in found.guard_fn(value))
    state: tuple[Any, ...] = ()
    # An object that is itself in traces may have been read by any of them.
    if found.kind == REFERENCE and (stays_real(value) or fake_class_of(type(value)) is not None):
        state = fact(flat_form(value)) if hasattr(value, "__obj_flatten__") else ()
    return (*state, *_members(value, found))


def _members(value: Any, found: OpaqueType) -> tuple[Any, ...]:
    read = [name for name, kind in found.members.items() if kind is MemberType.USE_REAL]
    values = [getattr(value, name) for name in read]
    return tuple(fact(v) for v in values if not callable(v))


def fact(value: Any) -> tuple[Any, ...]:
    """Give what two values share only if a program may take one for the other."""
    if isinstance(value, Tensor):
        return ("Tensor", tuple(map(str, value.shape)), str(value.dtype), value.requires_grad)
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *map(fact, value))
    if isinstance(value, dict):
        return ("dict", *((fact(k), fact(v)) for k, v in value.items()))
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return (type(value).__name__, repr(value))
    return (type(value).__name__, id(value))
