"""The text of a type to the type, and the alias annotation in it (SPEC S6 to S10)."""

from __future__ import annotations

import re
from functools import lru_cache

from polyop.errors import nearest
from polyop.schema.classes import class_named, class_names
from polyop.schema.literals import Fault, Reader, next_literal
from polyop.schema.model import AliasInfo
from polyop.schema.types import (
    BASE_TYPES,
    TENSOR,
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

_ALIAS_NAME = re.compile(r"\w+|\*")
COMMON_TYPES = "Tensor, Tensor?, Tensor[], SymInt, SymInt[], float, bool, str, Scalar, ScalarType"
#: Words of C, C++ and Python, and what is written for them.
FOREIGN_TYPES = {
    **dict.fromkeys(("int64_t", "int32_t", "int8_t", "uint8_t", "int16_t", "size_t"), "int"),
    **dict.fromkeys(("long", "short", "unsigned", "integer"), "int"),
    **dict.fromkeys(("double", "float64", "float32", "half"), "float"),
    **dict.fromkeys(("string", "std::string", "char", "c10::string_view"), "str"),
    **dict.fromkeys(("at::Tensor", "torch::Tensor", "torch.Tensor"), "Tensor"),
    "boolean": "bool",
    "dtype": "ScalarType",
    "torch.dtype": "ScalarType",
    "device": "Device",
    "torch.device": "Device",
    "c10::SymInt": "SymInt",
    "List": "T[]",
    "list": "T[]",
    "Optional": "T?",
    "Tuple": "(T, U)",
    "tuple": "(T, U)",
    "dict": "Dict(K, V)",
    "None": "NoneType",
    "void": "()",
}


@lru_cache(maxsize=4096)
def parse_type(text: str) -> tuple[Type, AliasInfo | None]:
    """Read a type, and the alias annotation of the Tensors in it.

    Raises:
        Fault: if it is none.
    """
    reader = _TypeReader(text)
    schema_type = reader.type()
    if reader.next:
        raise reader.fault(f"expected the end of the type, found {reader.next!r}")
    aliases = set(reader.aliases)
    if len(aliases) > 1:
        fix = "write the same set at each Tensor of the argument"
        raise Fault("one argument has one alias set", 0, len(text), fix)
    return schema_type, aliases.pop() if aliases else None


class _TypeReader(Reader):
    """Reads types, one method to a form."""

    __slots__ = ("aliases",)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.aliases: list[AliasInfo | None] = []

    def type(self) -> Type:
        """Read a type with its modifiers."""
        found = self.base()
        while True:
            if self.accept("?"):
                found = OptionalType(found)
            elif self.accept("["):
                found = ListType(found, self.size())
            elif self.next == "(":
                raise self.fault(
                    "an alias set stands at the word 'Tensor'", 0, "write 'Tensor(a!)[]'"
                )
            else:
                return found

    def size(self) -> int | None:
        """Read the rest of `[N]` or `[]`."""
        size = int(self.take()) if self.next.isdecimal() else None
        self.expect("]")
        return size

    def base(self) -> Type:
        """Read a type without modifiers."""
        word = self.take()
        if word == "(":
            return TupleType(self.items())
        if word == "{":
            return RecordType(self.fields())
        if word in _FORMS and self.next == "(":
            self.take()
            return _FORMS[word](self)
        return self.named(word)

    def named(self, word: str) -> Type:
        """Give the type that a word names, and read its alias set."""
        found: Type | None = BASE_TYPES.get(word)
        if found is TENSOR:
            self.aliases.append(self.alias() if self.accept("(") else None)
            return found
        if found is None and (cls := class_named(word)):
            found = ClassType(word, cls)
        if found is None:
            raise self.unknown(word)
        if self.next == "(":
            raise self.fault(f"{word} holds no Tensors, so it has no alias set")
        return found

    def unknown(self, word: str) -> Fault:
        """Give the fault for a word that is no type."""
        if not word[:1].isidentifier():
            return self.fault(f"expected a type, found {word or 'the end'!r}", 1)
        if word in FOREIGN_TYPES:
            return self.fault(f"{word!r} is no type here", 1, f"write {FOREIGN_TYPES[word]!r}")
        near = nearest(word, [*BASE_TYPES, *class_names()])
        return self.fault(f"{word!r} is no type{near}", 1, f"common types: {COMMON_TYPES}")

    def items(self) -> tuple[Type, ...]:
        """Read types up to the closing bracket."""
        found = [self.type()]
        while self.accept(","):
            found.append(self.type())
        self.expect(")")
        return tuple(found)

    def fields(self) -> tuple[tuple[str, Type], ...]:
        """Read `T name, U name}`."""
        found: dict[str, Type] = {}
        while True:
            schema_type = self.type()
            if not self.next.isidentifier() or self.next in found:
                raise self.fault("expected a field name of its own")
            found[self.take()] = schema_type
            if not self.accept(","):
                self.expect("}")
                return tuple(found.items())

    def alias(self) -> AliasInfo:
        """Read an alias annotation after its opening bracket."""
        before = self.alias_set()
        is_write = self.accept("!")
        after = self.alias_set() if self.accept("->") else before
        self.expect(")")
        return AliasInfo(before, after, is_write)

    def alias_set(self) -> frozenset[str]:
        """Read `a|b`, or `*`."""
        names = []
        while True:
            if not _ALIAS_NAME.fullmatch(self.next):
                raise self.fault("expected the name of an alias set, or '*'")
            names.append(self.take())
            if not self.accept("|"):
                return frozenset(names)


def _dict_form(reader: _TypeReader) -> Type:
    items = reader.items()
    if len(items) != 2:
        raise reader.fault("a dict has a key type and a value type", 1, "write 'Dict(str, Tensor)'")
    return DictType(*items)


def _union_form(reader: _TypeReader) -> Type:
    return UnionType(reader.items())


def _literal_form(reader: _TypeReader) -> Type:
    values = [next_literal(reader)]
    while reader.accept(","):
        values.append(next_literal(reader))
    if any(type(v) not in (str, int, bool) for v in values):
        raise reader.fault("Literal holds strings, integers and booleans", 1)
    reader.expect(")")
    return LiteralType(tuple(values))


_FORMS = {"Dict": _dict_form, "Union": _union_form, "Literal": _literal_form}
