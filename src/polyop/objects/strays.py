"""Opaque objects that traced code reaches themselves, where a capture has no fake for it.

A capture must neither change a real object nor rely on it. Arguments are fakes, and so is what
a capture finds in names, attributes, lists and dicts. But code may keep an object anywhere: in
a tuple, a slot, a default, a generator. So while a function is captured, the reference classes
answer in that thread with an error, unless the function made the object; who is not captured
notices nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from polyop.dispatch.context import PLAIN, note_failure, run_under, word
from polyop.errors import CaptureError, ObjectError
from polyop.forks import process_lock
from polyop.objects.fake_classes import FAKE_CLASSES, vars_of
from polyop.objects.fakes import refuse_changed, stays_real
from polyop.schema.opaque import opaque_type, reference_classes
from polyop.source import caller

#: What anybody may ask: it tells nothing of the state.
FREE = frozenset({"__class__", "__obj_flatten__", "tracing_mode"})
GUARDED = ("__getattribute__", "__setattr__", "__init__")
_LOCK = process_lock()
#: Per guarded class, how many captures watch it, and what it has itself.
_guarded: dict[type, tuple[int, dict[str, Any]]] = {}


@contextmanager
def watched(mode: Any, allowed: Collection[int] = ()) -> Iterator[None]:
    """Refuse, while a function is captured, what it does to real objects.

    Args:
        mode: the fake mode of the capture.
        allowed: the ids of objects that the capture knows of, and looks after.
    """
    classes = reference_classes()
    mode.__dict__["allowed"] = dict.fromkeys(allowed)
    with _LOCK:
        for cls in classes:
            _guard(cls)
    try:
        yield
    except BaseException:
        with suppress(ObjectError):  # there is an error already
            refuse_changed(mode)
        raise
    else:
        refuse_changed(mode)
    finally:
        with _LOCK:
            for cls in classes:
                _release(cls)


def _guard(cls: type) -> None:
    count, own = _guarded.get(cls, (0, {}))
    if not count:
        own = {name: cls.__dict__[name] for name in GUARDED if name in cls.__dict__}
        try:
            for name in GUARDED[:2]:
                setattr(cls, name, _asking(getattr(cls, name)))
            setattr(cls, "__init__", _noting(getattr(cls, "__init__")))
        except (TypeError, AttributeError):  # a class that cannot be changed is not watched
            pass
    _guarded[cls] = count + 1, own


def _release(cls: type) -> None:
    count, own = _guarded.pop(cls)
    if count > 1:
        _guarded[cls] = count - 1, own
        return
    for name in GUARDED:
        if name in own:
            setattr(cls, name, own[name])
        elif name in cls.__dict__:
            delattr(cls, name)


def _asking(plain: Callable[..., Any]) -> Callable[..., Any]:
    def access(self: Any, name: str, *value: Any) -> Any:
        if name not in FREE and _is_stray(self, name):
            _refuse(self, name)
        return plain(self, name, *value)

    return access


def _noting(plain: Callable[..., Any]) -> Callable[..., Any]:
    def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        allowed = _allowed()
        if allowed is not None:
            allowed[id(self)] = self  # it is kept, and so its id
        if plain is not object.__init__:
            plain(self, *args, **kwargs)

    return begin


def _is_stray(obj: Any, name: str) -> bool:
    allowed = _allowed()
    if allowed is None or id(obj) in allowed:
        return False
    kind = type(obj)
    if any(issubclass(kind, fake) for fake, _ in FAKE_CLASSES.values()):
        return False
    return not _is_member(kind, name) and not run_under(PLAIN, stays_real, obj)


def _allowed() -> dict[int, Any] | None:
    """Give the ids that the running capture allows, with the objects that it made."""
    here = word()
    if here.tracer is None or here.fake is None:
        return None
    found: dict[int, Any] | None = here.fake.__dict__.get("allowed")
    return found


def _is_member(kind: type, name: str) -> bool:
    """Tell whether the class allows an attribute in traces, or one of its methods asks for it."""
    found = opaque_type(kind)
    if found is None or not found.members:
        return found is None
    asks = sys._getframe(3).f_code
    own = (getattr(value, "fget", value) for value in vars_of(kind).values())
    return name in found.members or any(getattr(f, "__code__", None) is asks for f in own)


def _refuse(obj: Any, name: str) -> None:
    found = opaque_type(type(obj))
    error = CaptureError(
        f"the function reaches {name!r} of a {found.name if found else type(obj).__name__} in a "
        "way that its capture does not follow",
        argument=name,
        source=caller(),
        fix="pass the object as an argument, or keep it in a global, a closure, a list, a dict "
        "or an attribute",
    )
    note_failure(error)
    raise error
