"""Whether a value fits a type, and what it becomes: the cold path of calls.

Kernels get converted values: sequences as lists, NumPy integers as int, an
int for a float as float, one scalar for `T[N]` as a list of N (SPEC S64).
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np

from polyop import tree
from polyop.devices import DTYPES, Device
from polyop.schema.base_values import (
    Known,
    Mismatch,
    convert_base,
    register_generator,
    register_symbolic,
    set_tensor_predicate,
)
from polyop.schema.classes import class_named
from polyop.schema.literals import Word
from polyop.schema.types import (
    BaseType,
    ClassType,
    DictType,
    ListType,
    LiteralType,
    OptionalType,
    RecordType,
    TupleType,
    Type,
    UnionType,
)

__all__ = [
    "Mismatch",
    "convert",
    "default_matches",
    "fit_default",
    "fits",
    "opened",
    "record_values",
    "register_generator",
    "register_symbolic",
    "set_tensor_predicate",
    "thaw",
]


def convert(schema_type: Type, value: Any) -> Any:
    """Give a value as kernels get it.

    Raises:
        Mismatch: if it does not fit the type.
    """
    return _CONVERTERS[type(schema_type)](schema_type, value)


def fits(schema_type: Type, value: Any) -> bool:
    """Say whether a value fits a type."""
    try:
        convert(schema_type, value)
    except Mismatch:
        return False
    return True


def fit_default(schema_type: Type, value: Any) -> Any:
    """Give a default as an Argument keeps it: converted, and lists as tuples (S12)."""
    return _freeze(schema_type, convert(schema_type, value))


def default_matches(schema_type: Type, value: Any) -> bool:
    """Say whether a value may be the default of a type."""
    try:
        fit_default(schema_type, value)
    except Mismatch:
        return False
    return True


def thaw(value: Any) -> Any:
    """Give a default as kernels get it: tuples of defaults as lists."""
    return [thaw(v) for v in value] if isinstance(value, tuple) else value


def _freeze(schema_type: Type, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_freeze(schema_type, v) for v in value)
    if isinstance(value, float) and math.isnan(value):
        return math.nan
    if isinstance(value, np.dtype) and DTYPES.find(value.name) != value:
        raise Mismatch(schema_type, value, "a dtype that text cannot name")
    if isinstance(value, Enum) or type(value) in _WRITABLE or isinstance(value, np.dtype):
        return value
    raise Mismatch(schema_type, value, "not a constant that schema text can hold")


_WRITABLE = frozenset((type(None), bool, int, float, complex, str, Device))


def _optional(schema_type: OptionalType, value: Any) -> Any:
    return None if value is None else convert(schema_type.elem, value)


def _list(schema_type: ListType, value: Any) -> list[Any]:
    values = _sequence(value)
    if values is not None:
        # N is for filling; as in PyTorch, lists of other lengths pass (`int[2] stride=[]`).
        return [convert(schema_type.elem, v) for v in values]
    if schema_type.size is None:
        raise Mismatch(schema_type, value)
    return [convert(schema_type.elem, value)] * schema_type.size


def _sequence(value: Any) -> list[Any] | None:
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim else None
    if Known.is_tensor(value) or isinstance(value, str | bytes):
        return None
    return list(value) if isinstance(value, Sequence) else None


def _dict(schema_type: DictType, value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise Mismatch(schema_type, value)
    return {convert(schema_type.key, k): convert(schema_type.value, v) for k, v in value.items()}


def _tuple(schema_type: TupleType, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or len(value) != len(schema_type.items):
        raise Mismatch(schema_type, value)
    return tuple(map(convert, schema_type.items, value))


def _union(schema_type: UnionType, value: Any) -> Any:
    found = [convert(t, value) for t in schema_type.items if fits(t, value)]
    if not found:
        raise Mismatch(schema_type, value)
    # What stays as it is comes before what changes: True is no 1 in Union(int, bool).
    return min(found, key=lambda new: _change(value, new))


#: Numbers, each of a class that takes those of the classes before (S62).
_NUMBERS = (bool, int, float, complex)


def _change(value: Any, new: Any) -> int:
    """Say how much a conversion changed a value: the classes of numbers that it went up."""
    if isinstance(new, list | tuple) and new is not value:
        values = _sequence(value)
        if values is None:  # one number that fills a list
            return 2 * len(_NUMBERS)
        return max(map(_change, values, new), default=0)
    if isinstance(new, dict) and isinstance(value, Mapping):
        return max((_change(v, new.get(k)) for k, v in value.items()), default=0)
    kind = type(value.item() if isinstance(value, np.generic) else value)
    if kind is type(new):
        return 0
    known = kind in _NUMBERS and type(new) in _NUMBERS
    return _NUMBERS.index(type(new)) - _NUMBERS.index(kind) if known else len(_NUMBERS)


def opened(schema_type: Type, value: Any) -> Any:
    """Make the containers of a value those that kernels get, whatever stands in them yet."""
    match schema_type:
        case OptionalType():
            return None if value is None else opened(schema_type.elem, value)
        case ListType() if not isinstance(value, np.ndarray):
            values = _sequence(value)
            return value if values is None else [opened(schema_type.elem, v) for v in values]
        case DictType() if isinstance(value, Mapping):
            return {k: opened(schema_type.value, v) for k, v in value.items()}
        case RecordType() if isinstance(value, Mapping) and _takes_mappings(schema_type.cls):
            types = dict(schema_type.fields)
            return {k: opened(types[k], v) if k in types else v for k, v in value.items()}
        case RecordType():
            tree.learn_record(value.__class__)
    return value


def _literal(schema_type: LiteralType, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    for constant in schema_type.values:
        if type(constant) is type(value) and constant == value:
            return constant
    raise Mismatch(schema_type, value, f"the valid values are {_listed(schema_type)}")


def _listed(schema_type: LiteralType) -> str:
    return ", ".join(map(repr, schema_type.values))


def _class(schema_type: ClassType, value: Any) -> Any:
    cls = schema_type.cls or class_named(schema_type.name)
    if cls is None:
        raise Mismatch(schema_type, value, f"no class is registered as {schema_type.name}")
    # The fake of an object says that it is one (`polyop.objects`).
    if isinstance(value, cls):
        return value
    if not issubclass(cls, Enum):
        raise Mismatch(schema_type, value)
    if isinstance(value, Word) and value.rpartition(".")[2] in cls.__members__:
        return cls.__members__[value.rpartition(".")[2]]
    raise Mismatch(schema_type, value, f"the valid values are {', '.join(map(str, cls))}")


def _record(schema_type: RecordType, value: Any) -> Any:
    old = record_values(schema_type, value)
    try:
        new = {name: convert(t, old[name]) for name, t in schema_type.fields}
    except Mismatch:
        raise _misfit_field(schema_type, value, old) from None
    if isinstance(value, Mapping) and value.__class__ not in _DICTS:
        return new  # of another class its tensors would not be seen
    if all(new[name] is old[name] for name in new):
        return value  # the author's own object, as it came
    if isinstance(value, Mapping):
        return new
    record: Any = value
    if isinstance(value, tuple):
        return record._replace(**new)
    return tree.with_fields(record, new)


def _misfit_field(schema_type: RecordType, value: Any, given: dict[str, Any]) -> Mismatch:
    """Say of a record which of its fields does not fit."""
    for name, wanted in schema_type.fields:
        try:
            convert(wanted, given[name])
        except Mismatch as mismatch:
            why = f": {mismatch.reason}" if mismatch.reason else ""
            kind = type(given[name]).__name__
            return Mismatch(
                schema_type, value, f"its field {name!r} is {wanted}, and got {kind}{why}"
            )
    return Mismatch(schema_type, value)


#: Dicts whose tensors are seen.
_DICTS = frozenset((dict, OrderedDict, defaultdict))


def record_values(schema_type: RecordType, value: Any) -> dict[str, Any]:
    """Give the fields of a record by name.

    Raises:
        Mismatch: if the value is no such record, or fields are missing or unknown.
    """
    names = [name for name, _ in schema_type.fields]
    if isinstance(value, Mapping):
        if not _takes_mappings(schema_type.cls) or set(value) != set(names):
            raise Mismatch(schema_type, value, f"the fields are {', '.join(names)}")
        return {name: value[name] for name in names}
    if not _is_record(schema_type.cls, value):
        raise Mismatch(schema_type, value)
    missing = [name for name in names if not hasattr(value, name)]
    if missing:
        raise Mismatch(schema_type, value, f"it has no field {missing[0]!r}")
    if value.__class__ is not schema_type.cls:
        tree.learn_record(value.__class__)
    return {name: getattr(value, name) for name in names}


def _takes_mappings(cls: type | None) -> bool:
    # A TypedDict is a dict; a schema from text has no class to insist on.
    return cls is None or issubclass(cls, dict)


def _is_record(cls: type | None, value: Any) -> bool:
    if cls is not None:
        return isinstance(value, cls) if not issubclass(cls, dict) else False
    return hasattr(value, "_fields") or hasattr(type(value), "__dataclass_fields__")


_CONVERTERS: dict[type[Type], Callable[[Any, Any], Any]] = {
    BaseType: convert_base,
    OptionalType: _optional,
    ListType: _list,
    DictType: _dict,
    TupleType: _tuple,
    UnionType: _union,
    LiteralType: _literal,
    ClassType: _class,
    RecordType: _record,
}
