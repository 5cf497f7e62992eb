"""Records as containers: dataclasses that are taken apart, and made again of other values.

A record is made by its class, so that what `__post_init__` derives from the fields is derived from
the new ones. Where the class would not make this very record of its fields again (a field of
`init=False` that was set later, an `InitVar`, a `__post_init__` that changes a field), the record
is made past the constructor, and what it has beside its fields is taken along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from polyop.errors import UsageError, UsageTypeError
from polyop.tree.same import exact

#: By class: its fields, and whether nothing but them can make a difference.
RECORDS: dict[type, tuple[tuple[str, ...], bool]] = {}
_ATOMS = (int, float, complex, bool, str, bytes, type(None))


class Rest:
    """What a record has beside its fields; equal where the same would be taken along."""

    __slots__ = ("known", "state")

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = state
        self.known = {name: exact(value) for name, value in state.items()}  # as it is now

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rest) and self.known == other.known

    def __hash__(self) -> int:
        return hash(frozenset(self.state))


def fields_of(cls: type) -> tuple[str, ...]:
    """Give the names that the constructor of a dataclass takes."""
    known = RECORDS.get(cls)
    return tuple(f.name for f in fields(cls) if f.init) if known is None else known[0]


def field_of(record: Any, name: str) -> Any:
    """Give a field of a record by its name, and nothing else of it.

    Raises:
        UsageTypeError: it is no record, or has no such field.
    """
    names = fields_of(record.__class__) if hasattr(record, "__dataclass_fields__") else ()
    if name not in names:
        raise UsageTypeError(
            f"{record.__class__.__name__} has no field {name!r}",
            declared=", ".join(names) or "a dataclass",
        )
    return getattr(record, name)


def note_record(cls: type, names: tuple[str, ...]) -> None:
    """Keep the fields of a class."""
    RECORDS[cls] = names, _is_plain(cls, names)


def _is_plain(cls: type, names: Sequence[str]) -> bool:
    """Tell whether the constructor only puts its arguments into the fields."""
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    params = vars(owner).get("__dataclass_params__")
    if params is None or not params.init or hasattr(cls, "__post_init__"):
        return False
    return set(names) == set(cls.__dataclass_fields__)  # type: ignore[attr-defined]


def rest_of(record: Any) -> Rest | None:
    """Give what a record made of the same fields would lack, or None if it would be the same.

    Raises:
        UsageError: it lacks an array, which nobody could follow.
    """
    cls = record.__class__
    names, plain = RECORDS[cls]
    state = _state(record)
    if plain and state.keys() == set(names):
        return None
    try:
        twin = _state(cls(**{name: state[name] for name in names}))
    except Exception:  # it asks for more than its fields
        twin = {}
    if state.keys() == twin.keys() and all(
        _is_same(value, twin[name]) or (name not in names and _is_array(value))
        for name, value in state.items()
    ):
        return None
    rest = {name: value for name, value in state.items() if name not in names}
    for name, value in rest.items():
        if _is_array(value):
            raise UsageError(
                f"{cls.__qualname__}.{name} is an array beside the fields that make the record",
                argument=name, seen=type(value).__name__,
                fix=f"make it a field, or compute it of the fields: {name} is not followed",
            )  # fmt: skip
    return Rest(rest)


def made_record(cls: type, rest: Rest | None, values: Iterable[Any]) -> Any:
    """Make a record of the values of its fields, in order."""
    given = dict(zip(fields_of(cls), values, strict=True))
    return cls(**given) if rest is None else bare_record(cls, {**given, **rest.state})


def bare_record(cls: type, state: Mapping[str, Any]) -> Any:
    """Make a record past its constructor: one that mirrors another holds no values of its kind."""
    made: Any = object.__new__(cls)
    for name, value in state.items():
        object.__setattr__(made, name, value)
    return made


def with_fields(record: Any, values: Mapping[str, Any]) -> Any:
    """Give a record like another, with other values in some fields."""
    cls = record.__class__
    if cls not in RECORDS:
        note_record(cls, fields_of(cls))
    names = fields_of(cls)
    whole = [values[name] if name in values else getattr(record, name) for name in names]
    return made_record(cls, rest_of(record), whole)


def _state(record: Any) -> dict[str, Any]:
    """Give all that is set on an object, but what it keeps of values that it computed."""
    found = dict(getattr(record, "__dict__", ()))
    for base in record.__class__.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in {"__dict__", "__weakref__"} and hasattr(record, name):
                found[name] = getattr(record, name)
        for name, value in vars(base).items():
            if type(value).__name__ == "cached_property":
                found.pop(name, None)
    return found


def _is_same(value: Any, other: Any) -> bool:
    return value is other or (not _is_array(value) and bool(exact(value) == exact(other)))


def _is_array(value: Any) -> bool:
    return not isinstance(value, _ATOMS) and hasattr(value, "shape") and hasattr(value, "dtype")
