"""Dataclasses among the arguments, as their fields: a program takes what is in them.

As of lists and dicts, a capture gets another object with the same fields. So a class is
opened where nothing but its fields tells two objects apart: it compares by them, and no
code that is called asks what an object is. Who writes a field runs eagerly, on the
caller's object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import fields, make_dataclass
from types import FunctionType, MemberDescriptorType
from typing import Any, NamedTuple, TypeAlias

from polyop import tree
from polyop.compile.kinds import is_odd
from polyop.compile.recording import Capture, SideEffect
from polyop.dispatch.context import word
from polyop.objects.environment import root_of
from polyop.objects.identity import compares_identity
from polyop.schema.opaque import opaque_type
from polyop.tensor.tensor import Tensor
from polyop.tree.same import key_orders

#: The outline of an object, the number of one that was met before, or None for other values.
One: TypeAlias = "Outline | int | None"


class Outline(NamedTuple):
    """An object without what is in its fields."""

    cls: Any
    spec: Any
    orders: Any
    inside: tuple[One, ...]


class Unfit(Exception):  # noqa: N818 - it steers, and never reaches a user
    """An object has more than its fields, or is in itself, or a program cannot take a field."""


def fields_of(cls: type) -> tuple[str, ...] | None:
    """List the fields of a class whose objects are what their fields say; None for others."""
    own: Any = vars(cls)
    if "__dataclass_params__" not in own:
        return None
    members = tuple(own.get(name) for name in ("__eq__", "__hash__", "__del__"))
    known = own.get(_KEPT)
    if known is None or known[0] != members:
        known = members, _fields_of(cls)
        setattr(cls, _KEPT, known)
    found: tuple[str, ...] | None = known[1]
    return found


#: Where a class keeps what was found out about it.
_KEPT = "_polyop_opened"


def _fields_of(cls: Any) -> tuple[str, ...] | None:
    made = vars(cls).get("__dataclass_params__")
    if made is None or not made.eq or opaque_type(cls) is not None:
        return None
    plain = cls.__new__ is object.__new__ and cls.__getattribute__ is object.__getattribute__
    if not plain or hasattr(cls, "__del__") or hasattr(cls, "__getattr__"):
        return None
    hashes = cls.__hash__ is None or isinstance(cls.__hash__, FunctionType)
    names = tuple(field.name for field in fields(cls))
    members = [vars(base).get(name) for base in cls.__mro__ for name in names]
    data = all(not hasattr(x, "__get__") or isinstance(x, MemberDescriptorType) for x in members)
    return names if hashes and data and _eq_of(cls) is not None else None


def _eq_of(cls: type) -> Any:
    """Give the code by which a class compares, if Python wrote it for the fields."""
    names = [field.name for field in fields(cls) if field.compare]
    written: Any = make_dataclass("Written", names).__eq__
    own: Any = vars(cls).get("__eq__")
    if not isinstance(own, FunctionType):
        return None
    mine, theirs = own.__code__, written.__code__
    same = mine.co_code == theirs.co_code and mine.co_names == theirs.co_names
    return mine if same else None


def opened(leaves: Sequence[Any]) -> tuple[tuple[One, ...], list[Any]] | None:
    """Open the objects among some values; None if there are none, or one cannot be opened."""
    records = [x.__class__ for x in leaves if hasattr(x.__class__, "__dataclass_fields__")]
    classes: list[Any] = [cls for cls in records if fields_of(cls)]
    if not classes:
        return None
    flat: list[Any] = []
    try:
        found = _opened(leaves, flat, {}, ())
    except Unfit:
        return None
    # Frozen ones with plain values alone are values, which select programs themselves.
    values = all(cls.__dataclass_params__.frozen for cls in classes)
    if (values and not any(isinstance(x, Tensor) for x in flat)) or any(map(is_odd, flat)):
        return None
    return found, flat


def _opened(
    leaves: Sequence[Any], flat: list[Any], met: dict[int, int], path: tuple[int, ...]
) -> tuple[One, ...]:
    found: list[One] = []
    for leaf in leaves:
        names = fields_of(leaf.__class__)
        if names is None:
            found.append(None)
            flat.append(leaf)
        elif id(leaf) in path:
            raise Unfit
        elif id(leaf) in met:
            found.append(met[id(leaf)])
        else:
            met[id(leaf)] = len(met)
            values = _values(leaf, names)
            inside, spec = tree.flatten(values)
            outlines = _opened(inside, flat, met, (*path, id(leaf)))
            found.append(Outline(type(leaf), spec, key_orders(values), outlines))
    return tuple(found)


def _values(value: Any, names: tuple[str, ...]) -> list[Any]:
    own = getattr(value, "__dict__", {})
    if own.keys() - set(names):
        raise Unfit
    try:
        return [own[name] if name in own else getattr(value, name) for name in names]
    except AttributeError:
        raise Unfit from None


def _built(outlines: Sequence[One], rest: Any, met: list[Any]) -> list[Any]:
    """Make values again, of those that are in them."""
    done = []
    for one in outlines:
        if one is None:
            done.append(next(rest))
        elif isinstance(one, int):
            done.append(met[one])
        else:
            made = object.__new__(one.cls)
            met.append(made)
            values = tree.unflatten(one.spec, _built(one.inside, rest, met))
            for name, value in zip(fields_of(one.cls) or (), values, strict=True):
                object.__setattr__(made, name, value)
            done.append(made)
    return done


#: Whose call runs, and its arguments.
_call: ContextVar[tuple[Any, Any, Any] | None] = ContextVar("call", default=None)


class Opened:
    """A function of objects as one of what is in them."""

    def __init__(self, outlines: tuple[One, ...], spec: Any) -> None:
        self.outlines, self.spec = outlines, spec

    def function(self, fn: Callable[..., Any], classes: tuple[type, ...]) -> Callable[..., Any]:
        """Give the function to compile. It names what is guarded: `fn`, and the classes."""
        box = self

        def inside(*given: Any) -> Any:
            return box.run(fn, given, classes)

        inside.__name__ = getattr(fn, "__name__", "the function")  # errors name it
        inside.__module__ = root_of(fn)  # whose code is looked at
        return inside

    def run(self, fn: Callable[..., Any], given: Sequence[Any], _: Any) -> Any:
        """Call the function: on the caller's objects, in a capture on objects of its own.

        Raises:
            SideEffect: in a capture, the function changes one.
        """
        call = _call.get()
        captures = isinstance(word().tracer, Capture)
        if call is not None and call[0] is self and not captures:
            return fn(*call[1], **call[2])
        leaves = _built(self.outlines, iter(given), [])
        args, kwargs = tree.unflatten(self.spec, leaves)
        out = fn(*args, **kwargs)
        now = opened(leaves)
        if now is None or now[0] != self.outlines or not all(map(_is, now[1], given)):
            raise SideEffect("the function changes an object that it was given")
        return out


def _is(a: Any, b: Any) -> bool:
    return a is b


def run_opened(
    owner: Any, found: tuple[Any, list[Any]], fn: Any, leaves: Sequence[Any], spec: Any
) -> Any:
    """Run a call of a compiled function by the compiled function of what is in its arguments.

    Returns:
        What the call gives; `NotImplemented` where the function may tell an object from another.
    """
    outlines, flat = found
    kind = "opened", outlines, spec
    inner = owner.insides.get(kind)
    if inner is None:
        classes = tuple(_classes(outlines))
        inner = None, None
        if not compares_identity(fn, leaves, [_eq_of(cls) for cls in classes]):
            box = Opened(outlines, spec)
            settings = owner.fullgraph, owner.dynamic, owner.backend, owner.options
            inner = box, type(owner)(box.function(fn, classes), *settings)
        if len(owner.insides) >= owner.limit:
            owner.insides.clear()
        owner.insides[kind] = inner
    box, compiled = inner
    if box is None:
        return NotImplemented
    token = _call.set((box, *tree.unflatten(spec, leaves)))
    try:
        return compiled(*flat)
    finally:
        _call.reset(token)


def _classes(outlines: Sequence[One]) -> list[type]:
    found: dict[type, None] = {}
    waiting = list(outlines)
    for one in waiting:  # which grows
        if isinstance(one, Outline):
            found[one.cls] = None
            waiting += one.inside
    return list(found)
