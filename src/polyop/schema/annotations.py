"""Annotations of Python to types of the schema language (SPEC S17 to S19).

Classes of higher floors, `Tensor` first of all, are put into `ANNOTATIONS` by them.
"""

from __future__ import annotations

import collections.abc
import inspect
import numbers
import types
import typing
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

from polyop import tree
from polyop.devices import Device, Layout, MemoryFormat
from polyop.schema.classes import name_of_class
from polyop.schema.hints import Scope, class_hints
from polyop.schema.types import (
    ANNOTATIONS,
    BOOL,
    COMPLEX,
    DEVICE,
    FLOAT,
    GENERATOR,
    LAYOUT,
    MEMORYFORMAT,
    SCALAR,
    SCALARTYPE,
    STR,
    SYMINT,
    TENSOR,
    ClassType,
    DictType,
    ListType,
    LiteralType,
    OptionalType,
    RecordType,
    TupleType,
    Type,
    walk,
)

ANNOTATIONS |= {
    int: SYMINT,
    float: FLOAT,
    bool: BOOL,
    str: STR,
    complex: COMPLEX,
    numbers.Number: SCALAR,
    np.dtype: SCALARTYPE,
    Device: DEVICE,
    Layout: LAYOUT,
    MemoryFormat: MEMORYFORMAT,
}
_NONE = type(None)
_NUMBERS = frozenset((int, float, bool, complex))
_INTEGERS = frozenset((int, bool))
_LISTS = (list, collections.abc.Sequence)
_DICTS = (dict, collections.abc.Mapping)
_BARE = {
    list: "list[Tensor]",
    tuple: "tuple[int, int]",
    dict: "dict[str, Tensor]",
    collections.abc.Sequence: "Sequence[Tensor]",
    typing.List: "list[Tensor]",  # noqa: UP006 - what an author may write
    typing.Tuple: "tuple[int, int]",  # noqa: UP006
    typing.Dict: "dict[str, Tensor]",  # noqa: UP006
    object: "Tensor",
    np.ndarray: "Tensor",
    set: "list[int]",
    bytes: "str",
}


class Unsupported(Exception):  # noqa: N818 - the caller makes the user's error
    """An annotation that stands for no type."""

    def __init__(self, annotation: Any, fix: str = "") -> None:
        super().__init__(f"no type for {show(annotation)}")
        self.annotation = annotation
        self.fix = fix


def register_annotation(python_type: Any, schema_type: Type) -> None:
    """Let an annotation stand for a type."""
    ANNOTATIONS[python_type] = schema_type
    _seen.clear()


def show(annotation: Any) -> str:
    """Write an annotation as its author would."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def annotation_type(annotation: Any, scope: Scope | None = None) -> Type:
    """Give the type that an annotation stands for.

    Args:
        annotation: a class, a generic of `typing` or `collections.abc`, or text.
        scope: the names that text is evaluated with.

    Raises:
        Unsupported: if it stands for none.
        UnknownNameError: if text in it has an unknown name.
    """
    if isinstance(annotation, str | typing.ForwardRef):
        return _text(annotation, scope)
    try:
        found = ANNOTATIONS.get(annotation) or _seen.get(annotation)
    except TypeError:  # metadata that has no hash
        found = None
    if found is not None:
        return found
    if typing.get_origin(annotation) is not None:
        return _remember(annotation, _generic(annotation, scope))
    return _class(annotation, scope)


def _text(annotation: str | typing.ForwardRef, scope: Scope | None) -> Type:
    text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
    if scope is None:
        raise Unsupported(text)
    return annotation_type(scope.resolve(text), scope)


_seen: dict[Any, Type] = {}
SEEN_LIMIT = 4096


def _remember(annotation: Any, found: Type) -> Type:
    """Keep what a generic stands for, where that is the same in every scope."""
    lasting = not any(isinstance(t, ClassType | RecordType) for t in walk(found))
    if lasting and len(_seen) < SEEN_LIMIT and not _has_text(annotation):
        _seen[annotation] = found
    return found


def _has_text(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (typing.Annotated, typing.Literal):
        return True
    return isinstance(annotation, str | typing.ForwardRef) or any(
        map(_has_text, typing.get_args(annotation))
    )


def _generic(annotation: Any, scope: Scope | None) -> Type:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Annotated, typing.Required):
        return annotation_type(args[0], scope)
    if origin in (typing.Union, types.UnionType):
        return _union(annotation, args, scope)
    if origin is typing.Literal:
        return _literal(annotation, args)
    if origin is np.dtype:
        return SCALARTYPE
    if origin in _LISTS and args:
        return ListType(annotation_type(args[0], scope))
    if origin is tuple and args:
        return _tuple(args, scope)
    if origin in _DICTS and len(args) == 2:
        return _dict(annotation, args, scope)
    if origin is typing.NotRequired:
        raise Unsupported(annotation, "a record has all its fields: write T | None")
    raise Unsupported(annotation, _fix(origin))


def _union(annotation: Any, args: tuple[Any, ...], scope: Scope | None) -> Type:
    some = tuple(a for a in args if a is not _NONE)
    if len(some) < len(args) and some:
        inner = annotation_type(some[0], scope) if len(some) == 1 else _one_of(annotation, some)
        return inner if isinstance(inner, OptionalType) else OptionalType(inner)
    return _one_of(annotation, some)


def _one_of(annotation: Any, some: tuple[Any, ...]) -> Type:
    if _INTEGERS.issuperset(some):  # a Scalar would take fractions too
        raise Unsupported(annotation, "write int, or int | float for numbers of every kind")
    if _NUMBERS.issuperset(some):
        return SCALAR
    raise Unsupported(
        annotation, "a union is `T | None`, or one of numbers; define an overload each"
    )


def _literal(annotation: Any, values: tuple[Any, ...]) -> Type:
    some = tuple(v for v in values if v is not None)
    if not some or any(type(v) not in (str, int, bool) for v in some):
        raise Unsupported(annotation, "Literal holds strings, integers and booleans")
    found = LiteralType(some)
    return OptionalType(found) if len(some) < len(values) else found


def _tuple(args: tuple[Any, ...], scope: Scope | None) -> Type:
    if len(args) == 2 and args[1] is Ellipsis:
        return ListType(annotation_type(args[0], scope))
    return TupleType(tuple(annotation_type(a, scope) for a in args))


def _dict(annotation: Any, args: tuple[Any, ...], scope: Scope | None) -> Type:
    if args[0] is not str:
        raise Unsupported(annotation, f"write dict[str, {show(args[1])}]")
    return DictType(STR, annotation_type(args[1], scope))


def _class(cls: Any, scope: Scope | None) -> Type:
    if not isinstance(cls, type):
        raise Unsupported(cls, _fix(cls))
    # Not in the table: `np.random` takes long to import, and here it is imported already.
    if cls.__module__.startswith("numpy.random") and cls is np.random.Generator:
        return GENERATOR
    if name := name_of_class(cls):
        return ClassType(name, cls)
    if optional := getattr(cls, "__optional_keys__", ()):
        raise Unsupported(cls, f"a record has all its fields: write {min(optional)}: T | None")
    names = _field_names(cls)
    if names is None:
        raise Unsupported(cls, _fix(cls))
    return _record(cls, names, scope)


def _field_names(cls: type) -> tuple[str, ...] | None:
    """Give the fields of a dataclass, NamedTuple or TypedDict, else None."""
    if typing.is_typeddict(cls):
        return tuple(cls.__annotations__)
    if is_dataclass(cls):
        return tuple(f.name for f in fields(cls) if f.init)
    found: tuple[str, ...] = getattr(cls, "_fields", ()) if issubclass(cls, tuple) else ()
    return found if found and inspect.get_annotations(cls) else None


def _record(cls: type, names: tuple[str, ...], scope: Scope | None) -> RecordType:
    # The guard stands for a record inside itself, which has no end.
    if not names or cls in _open:
        raise Unsupported(cls, "a record has fields, and none of its own class")
    _open.append(cls)
    try:
        hints = class_hints(cls, scope)
        found = tuple((name, annotation_type(hints[name], scope)) for name in names)
    finally:
        _open.remove(cls)
    if is_dataclass(cls):
        tree.register_record(cls, names)
    return RecordType(found, cls)


_open: list[type] = []


#: Whose classes stand in annotations of operators of theirs, and what stands for these here.
_LIBRARIES = frozenset(("torch", "jax", "jaxlib", "numpy", "cupy", "dask"))
_TENSOR_FIX = (
    "write polyop.Tensor, which stands for the arrays of every library: x.numpy() is NumPy's, and "
    'op.register_kernel("cpu", library="torch") takes a kernel of one library\'s own functions'
)
_LIKEWISE = {
    **dict.fromkeys(("Tensor", "Parameter", "Array", "ndarray"), _TENSOR_FIX),
    "dtype": "write polyop.dtype",
    "device": "write polyop.device",
    "Generator": "write polyop.Generator",
}


def _name(annotation: Any) -> str:
    found: str = getattr(annotation, "__name__", "")
    return found.rpartition(".")[2]


def _fix(annotation: Any) -> str:
    """Name the nearest annotation that stands for a type."""
    if annotation in _BARE:
        return f"write {_BARE[annotation]}"
    if isinstance(annotation, type) and issubclass(annotation, np.generic):
        return "write int, float, bool or complex"
    root, name = getattr(annotation, "__module__", "").partition(".")[0], _name(annotation)
    if root in _LIBRARIES and name in _LIKEWISE:
        return _LIKEWISE[name]
    if isinstance(annotation, type) and not issubclass(annotation, Enum):
        return "register the class with register_opaque_type, or make it a dataclass"
    return "write Tensor, int, float, bool, str, or list, tuple, dict, Optional of these"


def returnable(schema_type: Type) -> bool:
    """Say whether a type may be a return, or an item of a returned tuple (SPEC S19)."""
    if isinstance(schema_type, OptionalType):
        return returnable(schema_type.elem)
    if isinstance(schema_type, ListType):
        return schema_type.elem == TENSOR
    if isinstance(schema_type, TupleType | RecordType):
        return all(map(returnable, schema_type.parts))
    return schema_type in _RETURNS or isinstance(schema_type, ClassType)


_RETURNS = frozenset((TENSOR, SYMINT, FLOAT, BOOL, SCALAR, STR, COMPLEX))
