"""Tables by kinds of calls, whose keys hold no object, and what becomes of them when one dies."""

from __future__ import annotations

from types import MethodType
from typing import Any
from weakref import ref

from polyop.objects.weakly import Forms, Note, Weak, has_weak
from polyop.tree.same import Same


class WeakKey:
    """Equal to what is equal to an object alone, or to a method of one."""

    __slots__ = ("_hash", "form", "weak")

    def __init__(self, key: Any, value: Any, note: Note) -> None:
        forms = Forms((), note)
        self._hash, self.form, self.weak = hash(key), forms.of(value), forms.weak

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if other.__class__ is Same:
            return self.form.same(other.value)  # type: ignore[no-any-return]
        return self is other or (type(other) is MethodType and bool(self.form.same(other)))

    def lives(self) -> bool:
        """Tell whether anything may be equal to it."""
        return all_live(self.weak)


def put(table: dict[Any, Any], key: Any, value: Any, note: Note) -> None:
    """Give a kind of calls a value; the table holds no object that the key is about."""
    table[key if key in table else _weak(key, note)] = value


def _weak(key: Any, note: Note) -> Any:
    if type(key) is tuple:
        return tuple([_weak(part, note) for part in key])
    if type(key) is MethodType:
        return WeakKey(key, key, note)
    if type(key) is Same and has_weak(type(key.value)):
        return WeakKey(key, key.value, note)
    return key


def _lives(key: Any) -> bool:
    if type(key) is tuple:
        return all(map(_lives, key))
    return not isinstance(key, WeakKey) or key.lives()


def all_live(weak: list[Weak] | tuple[Weak, ...]) -> bool:
    """Tell whether nothing that is held weakly died."""
    return all(x() is not None for x in weak)


def drop_dead(programs: dict[Any, list[Any]], *others: dict[Any, Any]) -> None:
    """Let go of programs that rely on what died, and of kinds of calls that cannot return."""
    for key, found in list(programs.items()):
        programs[key] = [one for one in found if all_live(one.origin.weak)]
    for table in (programs, *others):
        for key in [key for key in table if not _lives(key)]:
            del table[key]


def noting(owner: Any) -> Note:
    """Make what tells a compiled function that something died; it may run at any moment."""
    compiled = ref(owner)

    def note(_: Any) -> None:
        found = compiled()
        if found is not None:
            found.forget_dead()

    return note
