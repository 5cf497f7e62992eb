"""`register_opaque_type`: a class of the user's becomes a type that operators take (S183, S184)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from optree.registry import register_pytree_node

from polyop.errors import UsageError, UsageTypeError, nearest
from polyop.schema.classes import enum_name
from polyop.schema.opaque import (
    REFERENCE,
    VALUE,
    MemberType,
    OpaqueType,
    register_opaque,
)
from polyop.source import caller
from polyop.tensor.tensor import Tensor
from polyop.tree.containers import NAMESPACE

KINDS = (REFERENCE, VALUE)


def register_opaque_type(
    cls: type,
    *,
    typ: str,
    hoist: bool = False,
    guard_fn: Callable[[Any], Any] | None = None,
    members: Mapping[str, MemberType] | None = None,
    reconstruct_fn: Callable[..., Any] | None = None,
) -> None:
    """Make a class a schema type, so that operators take its objects.

    Args:
        cls: the class; its objects are leaves, which nobody looks into. In schemas it
            appears as `module.Class`.
        typ: `"reference"` for objects with a state, which are inputs of programs;
            `"value"` for constants, which are known by equality. A program with such an object
            in it can be saved if the class has `__obj_flatten__()`, which gives (name, value)
            pairs, and a classmethod `__obj_unflatten__(flat)`, which makes the object of them.
        hoist: let values be inputs of programs too, so that one program serves all.
        guard_fn: for a reference, gives what a compiled program relies on.
        members: by name, which attributes and methods traced code may use, and how.
        reconstruct_fn: `(obj, node_of, tracer)` gives the node of an object that is no
            input of the program, or None.

    Raises:
        UsageError: a built-in class, a pytree, `Tensor`, or an unknown `typ`.
        UsageTypeError: no class; a value class without `__eq__`, `__hash__` or
            `__fx_repr__`, or with a `guard_fn`; an unknown member or kind of member.

    Example:
        >>> import polyop
        >>> class Counter:
        ...     count = 0
        >>> polyop.library.register_opaque_type(Counter, typ="reference")
        >>> @polyop.custom_op("doc_opaque::bump", mutates_args=())
        ... def bump(counter: Counter, x: polyop.Tensor) -> polyop.Tensor:
        ...     counter.count += 1
        ...     return x * counter.count
        >>> counter = Counter()
        >>> bump(counter, polyop.ones(2)), bump(counter, polyop.ones(2))
        (tensor([1., 1.]), tensor([2., 2.]))
    """
    if typ not in KINDS:
        raise UsageError(
            f"{typ!r} is no kind of opaque type{nearest(typ, KINDS)}", declared=", ".join(KINDS)
        )
    _check_class(cls)
    if typ == VALUE:
        _check_value(cls, guard_fn)
    found = dict(members or {})
    _check_members(cls, found)
    for what, fn in (("guard_fn", guard_fn), ("reconstruct_fn", reconstruct_fn)):
        if fn is not None and not callable(fn):
            raise UsageTypeError(f"{what} is a function", seen=repr(fn))
    name = enum_name(cls)
    register_opaque(cls, OpaqueType(name, typ, hoist, guard_fn, found, reconstruct_fn, caller()))


def _check_class(cls: Any) -> None:
    if not isinstance(cls, type):
        raise UsageTypeError(
            "an opaque type is a class", seen=repr(cls), fix="give the class, not an object of it"
        )
    if cls.__module__ == "builtins" or issubclass(cls, Tensor):
        raise UsageError(
            f"{cls.__name__} has a schema type already",
            seen=repr(cls),
            fix="put it into a class of your own, and register that",
        )
    if register_pytree_node.get(cls, namespace=NAMESPACE) is not None:
        raise UsageError(
            f"{cls.__name__} is a container of trees, and an opaque object is a leaf",
            seen=repr(cls),
            fix="put it into a class of your own, and register that",
        )


def _check_value(cls: type, guard_fn: Any) -> None:
    if not issubclass(cls, Enum):
        _check_methods(cls)
    if guard_fn is not None:
        raise UsageTypeError(
            f"{cls.__name__} is a value, which is guarded by its equality",
            argument="guard_fn",
            fix="leave guard_fn out, or register it as a reference",
        )


def _check_methods(cls: Any) -> None:
    wanted = {
        "__eq__": (cls.__eq__ is not object.__eq__, "programs are guarded by it"),
        "__hash__": (
            cls.__hash__ is not None and cls.__hash__ is not object.__hash__,
            "programs and fake results are found by it",
        ),
        "__fx_repr__": (
            callable(getattr(cls, "__fx_repr__", None)),
            "programs are printed with it; it gives (text, {name: class})",
        ),
    }
    for name, (there, why) in wanted.items():
        if not there:
            raise UsageTypeError(
                f"a value class needs {name}: {why}",
                seen=repr(cls),
                fix=f"define {cls.__name__}.{name}, or register it as a reference",
            )


def _check_members(cls: type, members: dict[str, MemberType]) -> None:
    for name, kind in members.items():
        if not isinstance(name, str) or not isinstance(kind, MemberType):
            raise UsageTypeError(
                f"member {name!r} of {cls.__name__} is neither read nor inlined",
                declared=", ".join(map(str, MemberType)),
                seen=repr(kind),
            )
