"""Fake objects: what traced code has in the place of an opaque object.

A traced function must not change the real object, and what it asks of it must
be recorded. So it gets a `FakeObject`. Its methods are those of the fake class
that the author registered (`fake_classes.py`), and each call of one is a node
of the program.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from inspect import getattr_static
from types import MethodType
from typing import Any, NoReturn

from polyop import tree
from polyop.devices import META
from polyop.dispatch.context import PLAIN, note_failure, run_under, word
from polyop.errors import ObjectError, PolyopWarning, an
from polyop.lazy import load
from polyop.objects.fake_classes import fake_class_of, vars_of
from polyop.objects.reads import CONTAINERS, containers
from polyop.schema.classes import register_stand_in
from polyop.schema.opaque import MemberType, is_input, opaque_type
from polyop.source import caller, source_of
from polyop.tensor.meta import META_SPACE, meta_of
from polyop.tensor.tensor import Tensor, of_meta
from polyop.warn import warn_once

# -- making fakes -------------------------------------------------------------


def fake_of(mode: Any, value: Any) -> Any:
    """Give the fake of a reference in a fake mode, the same one each time.

    An object whose `tracing_mode()` is `"real"` stays as it is, and so does
    any value that is no reference. Without a mode, the fake is a new one.

    Raises:
        ObjectError: its flat form is not valid.
    """
    if type(value) is FakeObject or not is_input(value) or stays_real(value):
        return value
    if mode is None:
        return make_fake(None, value)
    made: dict[int, tuple[Any, FakeObject]] = mode.__dict__.setdefault("objects", {})
    if id(value) not in made:
        made[id(value)] = (value, make_fake(mode, value))  # the object is kept, and so its id
    return made[id(value)][1]


def fakes_in(mode: Any, value: Any) -> Any:
    """Put fakes in the place of the references in an argument."""
    if value.__class__ in _CONTAINERS:
        return tree.map_leaves(partial(fake_of, mode), value)
    return fake_of(mode, value)


_CONTAINERS = (list, tuple, dict)


def stays_real(value: Any) -> bool:
    """Tell whether an object wants to be itself in traces.

    Raises:
        ObjectError: its `tracing_mode()` is neither `"real"` nor `"fake"`.
    """
    ask = getattr(value, "tracing_mode", None)
    if not callable(ask):
        return False
    said = run_under(PLAIN, ask)  # it asks the object itself, in a trace too
    if said not in {"real", "fake"}:
        raise ObjectError(
            f"{type(value).__qualname__}.tracing_mode() gives {said!r}",
            declared="'real' or 'fake'",
        )
    return bool(said == "real")


def make_fake(mode: Any, value: Any) -> FakeObject:
    """Make a new fake of an object."""
    fake_class = fake_class_of(type(value))
    wrapped = None if fake_class is None else _unflatten(mode, fake_class, value)
    found = opaque_type(type(value))
    assert found is not None
    for name in found.members:
        if not hasattr(value, name):
            raise ObjectError(
                f"{an(found.name)} has no member {name!r}",
                source=found.source,
                fix="name attributes and methods that the object has",
            )
    # One that an operator made holds fakes, and that they are copied is no call of the function.
    with nullcontext() if mode is None else mode.traced_by(None):
        real = _copy(value, found.name)
    return FakeObject(wrapped, found.name, real, value)


def _unflatten(mode: Any, fake_class: type, value: Any) -> Any:
    flat = flat_form(value)
    # Sizes of the state are no inputs of the program: they stay plain numbers.
    fake = _on_meta if mode is None else mode.constant
    flat = tree.map_leaves(lambda x: fake(x) if isinstance(x, Tensor) else x, flat)
    under = word().but(tracer=None, fake=mode, modes=(), functional=None)
    made: Any = fake_class
    return run_under(under, made.__obj_unflatten__, flat)


def _on_meta(tensor: Tensor) -> Tensor:
    return of_meta(meta_of(tensor, META_SPACE, META))


def flat_form(value: Any) -> tuple[tuple[str, Any], ...]:
    """Give the state of an object: (name, value) pairs.

    Raises:
        ObjectError: there is no `__obj_flatten__`, or it gives something else.
    """
    name = type(value).__qualname__
    flatten = getattr(value, "__obj_flatten__", None)
    if flatten is None:
        raise ObjectError(
            f"{name} has a fake class, and no __obj_flatten__",
            fix=f"define {name}.__obj_flatten__(), which gives (name, value) pairs",
        )
    flat = run_under(PLAIN, flatten)
    pairs = isinstance(flat, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in flat
    )
    if not pairs:
        raise ObjectError(
            f"{name}.__obj_flatten__() gives no flat form",
            declared="a tuple of (name, value) pairs",
            seen=f"{flat!r:.120}",
            source=source_of(flatten),
        )
    return flat  # type: ignore[no-any-return]


def _copy(value: Any, name: str) -> Any:
    try:
        return run_under(PLAIN, copy.deepcopy, value)
    except Exception as error:  # whatever the object's own copying raises
        warn_once(
            PolyopWarning,
            f"{an(name)} cannot be copied ({error}), so real_obj of its fake is the object itself",
            key=("copy", name),
        )
        return value


def original_of(value: Any) -> Any:
    """Give the object that a fake stands for, None if a trace made it; else the value itself."""
    return object.__getattribute__(value, "_original") if type(value) is FakeObject else value


# -- fake objects -------------------------------------------------------------


class FakeObject:
    """What stands for an opaque object in a trace.

    Attributes:
        wrapped_obj: the object of the fake class, or None.
        class_name: the schema type.
        real_obj: a copy of the real object, as it was when tracing began.
    """

    __slots__ = ("__weakref__", "_original", "class_name", "real_obj", "wrapped_obj")
    wrapped_obj: Any
    class_name: str
    real_obj: Any

    def __init__(self, wrapped_obj: Any, class_name: str, real_obj: Any, original: Any) -> None:
        for name, value in (
            ("wrapped_obj", wrapped_obj),
            ("class_name", class_name),
            ("real_obj", real_obj),
            ("_original", original),
        ):
            object.__setattr__(self, name, value)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # `isinstance(x, Queue)` in traced code is then true without a base class.
        return type(self.real_obj)

    def __getattr__(self, name: str) -> Any:
        original = object.__getattribute__(self, "_original")
        found = opaque_type(type(self.real_obj))
        member = found.members.get(name) if found is not None else None
        if member is MemberType.USE_REAL:
            return _noted(self, name, getattr(original, name))
        if member is MemberType.INLINED:
            return _inlined(self, name)
        if self.wrapped_obj is None or name.startswith("__") or not hasattr(self.wrapped_obj, name):
            # Whoever walks through values asks each for a `__dict__` and the like.
            _lacking(self, name, fails=not name.startswith("__") and _has(self.real_obj, name))
        value = getattr(self.wrapped_obj, name)
        return partial(_call_object(), self, name) if callable(value) else _noted(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if self.wrapped_obj is None or not hasattr(self.wrapped_obj, name):
            _lacking(self, name, fails=True)
        if word().tracer is not None:
            error = ObjectError(
                f"attribute {name!r} of {an(self.class_name)} is set in a traced function, "
                "and the program would not do that",
                source=caller(),
                fix="make it a method of the object and of its fake class, or an operator",
            )
            note_failure(error)
            raise error
        setattr(self.wrapped_obj, name, value)

    def __eq__(self, other: object) -> bool:
        if other is self:
            return True
        kind: Any = type(self.real_obj)
        if kind.__eq__ is not object.__eq__:
            _lacking(self, "__eq__", fails=True)
        return False

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        kind = type(self.real_obj)
        for name in ("__bool__", "__len__"):
            if hasattr(kind, name):
                return bool(self._special(name)())
        return True

    def __len__(self) -> int:
        return int(self._special("__len__")())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._special("__iter__")())

    def __getitem__(self, key: Any) -> Any:
        return self._special("__getitem__")(key)

    def __contains__(self, item: Any) -> bool:
        return bool(self._special("__contains__")(item))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the object, if its fake class can be called."""
        return self._special("__call__")(*args, **kwargs)

    def _special(self, name: str) -> Callable[..., Any]:
        if self.wrapped_obj is None or not hasattr(type(self.wrapped_obj), name):
            _lacking(self, name, fails=_has(self.real_obj, name))
        return partial(_call_object(), self, name)

    def __repr__(self) -> str:
        return f"FakeObject({self.class_name})"

    def __deepcopy__(self, memo: Any) -> FakeObject:
        wrapped = copy.deepcopy(self.wrapped_obj, memo)
        return FakeObject(wrapped, self.class_name, self.real_obj, original_of(self))

    def __reduce__(self) -> NoReturn:
        raise ObjectError(f"a fake {self.class_name} is part of a trace, and cannot be saved")


def _call_object() -> Callable[..., Any]:
    found: Callable[..., Any] = load("polyop.objects.calls:call_object")
    return found


def _inlined(fake: FakeObject, name: str) -> Any:
    """Give a member whose code runs on the fake, so that the operators in it are recorded."""
    written = vars_of(type(fake.real_obj)).get(name)
    if isinstance(written, property) and written.fget is not None:
        return written.fget(fake)
    if callable(written):
        return MethodType(written, fake)
    return _noted(fake, name, getattr(original_of(fake), name))


def _noted(fake: FakeObject, name: str, value: Any) -> Any:
    """Give an attribute, and tell a capture without guards that its program relies on it."""
    here = word()
    if here.fake is None:
        return value
    if here.tracer is not None and type(value) in CONTAINERS:
        shown = here.fake.__dict__.setdefault("shown", [])
        shown += [(fake.class_name, name, one) for one in containers(value)]
    note = here.fake.__dict__.get("on_read")
    return value if note is None else note(fake, name, value)


def refuse_changed(mode: Any) -> None:
    """Put back, and refuse, what a traced function did to a list or dict of an object.

    Raises:
        ObjectError: with the attribute that has it.
    """
    shown = mode.__dict__.pop("shown", ())
    changed = [(owner, name) for owner, name, one in shown if not one.same()]
    for _, _, one in reversed(shown):
        one.restore()
    if changed:
        owner, name = changed[0]
        raise ObjectError(
            f"what attribute {name!r} of a {owner} holds is changed in a traced function, and the "
            "program would not do that",
            argument=name,
            fix="make it a method of the object and of its fake class, or an operator",
        )


def _has(value: Any, name: str) -> bool:
    return getattr_static(value, name, None) is not None


def _lacking(fake: FakeObject, name: str, *, fails: bool) -> NoReturn:
    kind = type(fake.real_obj).__qualname__
    known = fake.wrapped_obj is not None
    error = ObjectError(
        f"the fake of a {fake.class_name} has no attribute {name!r}"
        if known
        else f"attribute {name!r} of a {fake.class_name} is used in a trace, "
        "and it has no fake class",
        argument=name,
        seen=f"the fake class {type(fake.wrapped_obj).__qualname__}" if known else "",
        source=caller(),
        fix=f"define {name} in the fake class"
        if known
        else f"register one (polyop.library.register_fake_class({kind})), or allow this member: "
        f"register_opaque_type({kind}, members={{{name!r}: MemberType.USE_REAL}})",
    )
    if fails:  # the object itself would answer
        note_failure(error)
    raise error


register_stand_in(FakeObject)
