"""The types of the schema language.

`str` of a type is its schema text. Types are compared by structure; the
Python class behind a record or an opaque name is carried, not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from polyop.schema.literals import literal_text


class Type:
    """Base of all schema types.

    Plain slots: nine dataclasses would take a tenth of the time that importing polyop may.
    """

    __slots__ = ("_kind", "_text")
    _kind: str  # what `leaf_kind` says, once it has
    _text: str
    __match_args__: tuple[str, ...]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"types cannot be changed, {name!r} neither")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def text(self, alias: str = "") -> str:
        """Give the schema text, with an alias annotation on each Tensor in it."""
        raise NotImplementedError

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types that this one is made of."""
        return ()

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])

    def _compared(self) -> tuple[Any, ...]:
        return self._values()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Type) or self.__class__ is not other.__class__:
            return False
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        try:
            return self._text
        except AttributeError:
            put(self, "_text", self.text())
            return self._text

    def __repr__(self) -> str:
        values = zip(self.__match_args__, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in values)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._values()


put = object.__setattr__


class BaseType(Type):
    """A type with a name of its own, such as `Tensor` or `int`."""

    __slots__ = __match_args__ = ("name",)
    name: str

    def __init__(self, name: str) -> None:
        put(self, "name", name)

    def text(self, alias: str = "") -> str:
        """Give the name."""
        return self.name + alias if self.name == "Tensor" else self.name


class OptionalType(Type):
    """A value or None: `T?`."""

    __slots__ = __match_args__ = ("elem",)
    elem: Type

    def __init__(self, elem: Type) -> None:
        put(self, "elem", elem)

    def text(self, alias: str = "") -> str:
        """Give `T?`."""
        return f"{self.elem.text(alias)}?"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The type of the value."""
        return (self.elem,)


class ListType(Type):
    """A list: `T[]`, or `T[N]`, which one scalar fills."""

    __slots__ = __match_args__ = ("elem", "size")
    elem: Type
    size: int | None

    def __init__(self, elem: Type, size: int | None = None) -> None:
        put(self, "elem", elem)
        put(self, "size", size)

    def text(self, alias: str = "") -> str:
        """Give `T[]` or `T[N]`."""
        return f"{self.elem.text(alias)}[{'' if self.size is None else self.size}]"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The type of the elements."""
        return (self.elem,)


class DictType(Type):
    """A dict: `Dict(K, V)`."""

    __slots__ = __match_args__ = ("key", "value")
    key: Type
    value: Type

    def __init__(self, key: Type, value: Type) -> None:
        put(self, "key", key)
        put(self, "value", value)

    def text(self, alias: str = "") -> str:
        """Give `Dict(K, V)`."""
        return f"Dict({self.key.text(alias)}, {self.value.text(alias)})"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types of keys and values."""
        return (self.key, self.value)


class TupleType(Type):
    """A tuple of fixed length: `(T, U)`."""

    __slots__ = __match_args__ = ("items",)
    items: tuple[Type, ...]

    def __init__(self, items: tuple[Type, ...]) -> None:
        put(self, "items", items)

    def text(self, alias: str = "") -> str:
        """Give `(T, U)`."""
        return f"({', '.join(t.text(alias) for t in self.items)})"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types of the items."""
        return self.items


class UnionType(Type):
    """One of several types: `Union(T, U)`."""

    __slots__ = __match_args__ = ("items",)
    items: tuple[Type, ...]

    def __init__(self, items: tuple[Type, ...]) -> None:
        put(self, "items", items)

    def text(self, alias: str = "") -> str:
        """Give `Union(T, U)`."""
        return f"Union({', '.join(t.text(alias) for t in self.items)})"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types to choose from."""
        return self.items


class RecordType(Type):
    """Named fields: `{Tensor weight, Tensor? bias}` (SPEC S8).

    `cls` is the author's dataclass, NamedTuple or TypedDict, if there is one.
    """

    __slots__ = __match_args__ = ("fields", "cls")
    fields: tuple[tuple[str, Type], ...]
    cls: type | None

    def __init__(self, fields: tuple[tuple[str, Type], ...], cls: type | None = None) -> None:
        put(self, "fields", fields)
        put(self, "cls", cls)

    def text(self, alias: str = "") -> str:
        """Give `{T name, U name}`."""
        return "{" + ", ".join(f"{t.text(alias)} {name}" for name, t in self.fields) + "}"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types of the fields."""
        return tuple(t for _, t in self.fields)

    def _compared(self) -> tuple[Any, ...]:
        return (self.fields,)


class LiteralType(Type):
    """One of the given constants: `Literal("sum", "mean")` (SPEC S9)."""

    __slots__ = __match_args__ = ("values",)
    values: tuple[str | int | bool, ...]

    def __init__(self, values: tuple[str | int | bool, ...]) -> None:
        put(self, "values", values)

    def text(self, alias: str = "") -> str:
        """Give `Literal(a, b)`."""
        return f"Literal({', '.join(map(literal_text, self.values))})"

    def _compared(self) -> tuple[Any, ...]:
        return (self.text(),)  # 1 and True are two constants here


class ClassType(Type):
    """An opaque class or an Enum, by its registered name."""

    __slots__ = __match_args__ = ("name", "cls")
    name: str
    cls: type | None

    def __init__(self, name: str, cls: type | None = None) -> None:
        put(self, "name", name)
        put(self, "cls", cls)

    def text(self, alias: str = "") -> str:
        """Give the name."""
        return self.name

    def _compared(self) -> tuple[Any, ...]:
        return (self.name,)


TENSOR = BaseType("Tensor")
INT = BaseType("int")
SYMINT = BaseType("SymInt")
FLOAT = BaseType("float")
BOOL = BaseType("bool")
COMPLEX = BaseType("complex")
STR = BaseType("str")
SCALAR = BaseType("Scalar")
SCALARTYPE = BaseType("ScalarType")
LAYOUT = BaseType("Layout")
MEMORYFORMAT = BaseType("MemoryFormat")
DEVICE = BaseType("Device")
GENERATOR = BaseType("Generator")
ANY = BaseType("Any")
NONETYPE = BaseType("NoneType")

OPT_TENSOR = OptionalType(TENSOR)

#: The types with a name of their own, by the words of the language.
BASE_TYPES: dict[str, BaseType] = {
    t.name: t
    for t in (
        *(TENSOR, INT, SYMINT, FLOAT, BOOL, COMPLEX, STR, SCALAR, SCALARTYPE, LAYOUT),
        *(MEMORYFORMAT, DEVICE, GENERATOR, ANY, NONETYPE),
    )
}
BASE_TYPES["number"] = SCALAR

#: What classes stand for in annotations, those of higher floors; `annotations.py` adds Python's.
ANNOTATIONS: dict[Any, Type] = {}


def walk(schema_type: Type) -> Iterator[Type]:
    """Give a type and all types inside it."""
    yield schema_type
    for part in schema_type.parts:
        yield from walk(part)


def holds_tensor(schema_type: Type) -> bool:
    """Say whether values of a type can hold Tensors."""
    return schema_type is TENSOR or any(part == TENSOR for part in walk(schema_type))


_KINDS: dict[Type, str] = {
    TENSOR: "tensor",
    OPT_TENSOR: "tensor?",
    ListType(TENSOR): "tensor[]",
    ListType(OPT_TENSOR): "tensor?[]",
}


def leaf_kind(schema_type: Type) -> str:
    """Say what generated code does with a type.

    `"tensor"`, `"tensor?"`, `"tensor[]"` and `"tensor?[]"` are what they say;
    `"static"` holds no Tensor; `"tree"` has Tensors deeper inside.
    """
    try:
        return schema_type._kind
    except AttributeError:
        put(schema_type, "_kind", _leaf_kind(schema_type))
        return schema_type._kind


def _leaf_kind(schema_type: Type) -> str:
    if isinstance(schema_type, ListType) and schema_type.size is not None:
        return leaf_kind(ListType(schema_type.elem))
    kind = _KINDS.get(schema_type)
    return kind or ("tree" if holds_tensor(schema_type) else "static")
