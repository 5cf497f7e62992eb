"""The types of the schema language.

`str` of a type is its schema text. Types are compared by structure; the
Python class behind a record or an opaque name is carried, not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from polyop.schema.literals import literal_text


class Type:
    """Base of all schema types."""

    __slots__ = ()

    def text(self, alias: str = "") -> str:
        """Give the schema text, with an alias annotation on each Tensor in it."""
        raise NotImplementedError

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types that this one is made of."""
        return ()

    def __str__(self) -> str:
        return self.text()


@dataclass(frozen=True, slots=True)
class BaseType(Type):
    """A type with a name of its own, such as `Tensor` or `int`."""

    name: str

    def text(self, alias: str = "") -> str:
        """Give the name."""
        return self.name + alias if self.name == "Tensor" else self.name

    __str__ = Type.__str__


@dataclass(frozen=True, slots=True)
class OptionalType(Type):
    """A value or None: `T?`."""

    elem: Type

    def text(self, alias: str = "") -> str:
        """Give `T?`."""
        return f"{self.elem.text(alias)}?"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The type of the value."""
        return (self.elem,)

    __str__ = Type.__str__


@dataclass(frozen=True, slots=True)
class ListType(Type):
    """A list: `T[]`, or `T[N]`, which one scalar fills."""

    elem: Type
    size: int | None = None

    def text(self, alias: str = "") -> str:
        """Give `T[]` or `T[N]`."""
        return f"{self.elem.text(alias)}[{'' if self.size is None else self.size}]"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The type of the elements."""
        return (self.elem,)

    __str__ = Type.__str__


@dataclass(frozen=True, slots=True)
class DictType(Type):
    """A dict: `Dict(K, V)`."""

    key: Type
    value: Type

    def text(self, alias: str = "") -> str:
        """Give `Dict(K, V)`."""
        return f"Dict({self.key.text(alias)}, {self.value.text(alias)})"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types of keys and values."""
        return (self.key, self.value)

    __str__ = Type.__str__


@dataclass(frozen=True, slots=True)
class TupleType(Type):
    """A tuple of fixed length: `(T, U)`."""

    items: tuple[Type, ...]

    def text(self, alias: str = "") -> str:
        """Give `(T, U)`."""
        return f"({', '.join(t.text(alias) for t in self.items)})"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types of the items."""
        return self.items

    __str__ = Type.__str__


@dataclass(frozen=True, slots=True)
class UnionType(Type):
    """One of several types: `Union(T, U)`."""

    items: tuple[Type, ...]

    def text(self, alias: str = "") -> str:
        """Give `Union(T, U)`."""
        return f"Union({', '.join(t.text(alias) for t in self.items)})"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types to choose from."""
        return self.items

    __str__ = Type.__str__


@dataclass(frozen=True, slots=True)
class RecordType(Type):
    """Named fields: `{Tensor weight, Tensor? bias}` (SPEC S8).

    `cls` is the author's dataclass, NamedTuple or TypedDict, if there is one.
    """

    fields: tuple[tuple[str, Type], ...]
    cls: type | None = field(default=None, compare=False)

    def text(self, alias: str = "") -> str:
        """Give `{T name, U name}`."""
        return "{" + ", ".join(f"{t.text(alias)} {name}" for name, t in self.fields) + "}"

    @property
    def parts(self) -> tuple[Type, ...]:
        """The types of the fields."""
        return tuple(t for _, t in self.fields)

    __str__ = Type.__str__


@dataclass(frozen=True, slots=True, eq=False)
class LiteralType(Type):
    """One of the given constants: `Literal("sum", "mean")` (SPEC S9)."""

    values: tuple[str | int | bool, ...]

    def text(self, alias: str = "") -> str:
        """Give `Literal(a, b)`."""
        return f"Literal({', '.join(map(literal_text, self.values))})"

    # By text: 1 and True are two constants here.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, LiteralType) and self.text() == other.text()

    def __hash__(self) -> int:
        return hash(self.text())

    __str__ = Type.__str__


@dataclass(frozen=True, slots=True)
class ClassType(Type):
    """An opaque class or an Enum, by its registered name."""

    name: str
    cls: type | None = field(default=None, compare=False)

    def text(self, alias: str = "") -> str:
        """Give the name."""
        return self.name

    __str__ = Type.__str__


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
    if isinstance(schema_type, ListType) and schema_type.size is not None:
        return leaf_kind(ListType(schema_type.elem))
    kind = _KINDS.get(schema_type)
    return kind or ("tree" if holds_tensor(schema_type) else "static")
