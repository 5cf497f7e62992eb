"""The frozen signature of an operator: arguments, returns, aliases.

Two schemas are equal when their text is: defaults are compared as they are
written, so that 1, 1.0 and True differ and nan equals itself (SPEC S14, S15).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import cached_property
from typing import Any, Final, NoReturn

from polyop.lazy import load
from polyop.records import NamedTuple
from polyop.schema.literals import literal_text
from polyop.schema.types import (
    ListType,
    OptionalType,
    RecordType,
    Type,
    UnionType,
    holds_tensor,
    walk,
)


class Missing(Enum):
    """The type of `MISSING`; an Enum, so that copies are the same object."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING


class AliasInfo(NamedTuple):
    """Which storage a Tensor shares, before and after the call (SPEC S10)."""

    before_set: frozenset[str]
    after_set: frozenset[str]
    is_write: bool = False

    def __str__(self) -> str:
        text = alias_set_text(self.before_set) + ("!" if self.is_write else "")
        if self.after_set != self.before_set:
            text += f" -> {alias_set_text(self.after_set)}"
        return f"({text})"


def alias_set_text(names: frozenset[str]) -> str:
    """Write an alias set, the wildcard last."""
    return "|".join(sorted(names, key=lambda name: (name == "*", name)))


def alias(name: str, *, write: bool = False) -> AliasInfo:
    """Give the alias annotation of one set: `(a)`, or `(a!)`."""
    names = frozenset((name,))
    return AliasInfo(names, names, write)


class Argument(NamedTuple):
    """An argument or a return: its type, name, default and aliases (SPEC S14).

    Defaults are what kernels get, lists as tuples, so that none can be changed.
    """

    name: str
    type: Type
    alias_info: AliasInfo | None = None
    default_value: Any = MISSING
    kwarg_only: bool = False

    @property
    def real_type(self) -> Type:
        """The type, which is never simplified here."""
        return self.type

    @property
    def N(self) -> int | None:
        """The length of a list type that has one."""
        inner = self.type.elem if isinstance(self.type, OptionalType) else self.type
        return inner.size if isinstance(inner, ListType) else None

    @property
    def is_write(self) -> bool:
        """Whether the operator writes this argument."""
        return self.alias_info is not None and self.alias_info.is_write

    @property
    def is_out(self) -> bool:
        """Whether this is a keyword-only argument for a result."""
        return self.kwarg_only and self.is_write

    def has_default_value(self) -> bool:
        """Say whether the argument may be left out."""
        return self.default_value is not MISSING

    def _key(self) -> tuple[Any, ...]:
        default = self.default_value
        text = None if default is MISSING else repr(default)
        return (self.name, self.type, self.alias_info, text, self.kwarg_only)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Argument) and self._key() == other._key())

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        text = self.type.text("" if self.alias_info is None else str(self.alias_info))
        if self.name:
            text += f" {self.name}"
        if self.default_value is not MISSING:
            words = any(isinstance(t, UnionType) for t in walk(self.type))
            text += f"={literal_text(self.default_value, words=words)}"
        return text


class FunctionSchema:
    """The frozen signature of one overload (SPEC S14).

    No dataclass: reading `dataclasses` takes a thirtieth of the time that importing polyop may.
    """

    __match_args__ = ("name", "overload_name", "version", "arguments", "returns", "is_vararg")
    name: str
    overload_name: str
    version: int
    arguments: tuple[Argument, ...]
    returns: tuple[Argument, ...]
    is_vararg: bool

    def __init__(  # noqa: PLR0917 - all its fields, in order
        self,
        name: str,
        overload_name: str = "",
        version: int = 1,
        arguments: tuple[Argument, ...] = (),
        returns: tuple[Argument, ...] = (),
        is_vararg: bool = False,
    ) -> None:
        self.__dict__.update(
            name=name,
            overload_name=overload_name,
            version=version,
            arguments=arguments,
            returns=returns,
            is_vararg=is_vararg,
        )

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise load("dataclasses:FrozenInstanceError")(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise load("dataclasses:FrozenInstanceError")(f"cannot delete field {name!r}")

    def _fields(self) -> tuple[Any, ...]:
        return (self.name, self.overload_name, self.version, self.arguments, self.returns,
                self.is_vararg)  # fmt: skip

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, FunctionSchema) or self.__class__ is not other.__class__:
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def but(self, **fields: Any) -> FunctionSchema:
        """Give the same signature with some fields changed."""
        return FunctionSchema(
            **{name: getattr(self, name) for name in self.__match_args__} | fields
        )

    @property
    def namespace(self) -> str:
        """The namespace, or nothing."""
        return self.name.rpartition("::")[0]

    @property
    def short_name(self) -> str:
        """The name without namespace."""
        return self.name.rpartition("::")[2]

    @cached_property
    def qualified_name(self) -> str:
        """`ns::op.overload`, with `@2` from version 2 on."""
        text = f"{self.name}.{self.overload_name}" if self.overload_name else self.name
        return f"{text}@{self.version}" if self.version > 1 else text

    @cached_property
    def positional(self) -> tuple[Argument, ...]:
        """The arguments that may be given by position."""
        return tuple(a for a in self.arguments if not a.kwarg_only)

    @cached_property
    def keyword_only(self) -> tuple[Argument, ...]:
        """The arguments that are given by name only."""
        return tuple(a for a in self.arguments if a.kwarg_only)

    @cached_property
    def written(self) -> tuple[Argument, ...]:
        """The arguments that the operator writes."""
        return tuple(a for a in self.arguments if a.is_write)

    @property
    def is_mutable(self) -> bool:
        """Whether some argument is written."""
        return bool(self.written)

    @cached_property
    def is_view(self) -> bool:
        """Whether some argument has an alias set, and none is written."""
        return not self.written and any(a.alias_info is not None for a in self.arguments)

    def flat(self) -> FunctionSchema:
        """Give the equal schema of leaves: records are split into their fields (S8)."""
        return self.but(
            arguments=tuple(leaf for a in self.arguments for leaf in _leaves(a)),
            returns=tuple(leaf for a in self.returns for leaf in _leaves(a)),
        )

    @cached_property
    def _text(self) -> str:
        words = [str(a) for a in self.positional]
        if self.keyword_only:
            words += ["*", *map(str, self.keyword_only)]
        if self.is_vararg:
            words.append("...")
        return f"{self.qualified_name}({', '.join(words)}) -> {self._returns_text()}"

    def _returns_text(self) -> str:
        words = [str(r) for r in self.returns]
        if len(words) == 1 and words[0][0] != "(":
            return words[0]
        return f"({', '.join(words)})"

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"FunctionSchema({self._text!r})"


def _leaves(arg: Argument) -> Iterator[Argument]:
    optional = isinstance(arg.type, OptionalType)
    record = arg.type.elem if isinstance(arg.type, OptionalType) else arg.type
    if not isinstance(record, RecordType):
        yield arg
        return
    for name, inner in record.fields:
        # Where the whole may be None, each part may.
        field_type = (
            OptionalType(inner) if optional and not isinstance(inner, OptionalType) else inner
        )
        full = f"{arg.name}.{name}" if arg.name else name
        alias_info = arg.alias_info if holds_tensor(field_type) else None
        yield from _leaves(arg._replace(name=full, type=field_type, alias_info=alias_info))
