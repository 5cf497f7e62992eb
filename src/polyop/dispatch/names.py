"""The names of operator objects: polyop's, and those by which code for PyTorch reads the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from polyop.dispatch.keys import DispatchKey
from polyop.errors import OperatorNotFoundError
from polyop.lazy import load
from polyop.schema.tags import Tag


class OverloadNames:
    """What an overload is called, and what it is reached by."""

    __slots__ = ()

    def name(self: Any) -> str:
        """Give `ns::op` or `ns::op.overload`."""
        name: str = self._schema.qualified_name
        return name

    def __str__(self: Any) -> str:
        version = f"@{self._schema.version}" if self._schema.version > 1 else ""
        return f"{self.namespace}.{self._opname}.{self._overloadname}{version}"

    def __repr__(self: Any) -> str:
        name = f"{self.namespace}.{self._opname}"
        return f"<OpOverload(op='{name}', overload='{self._overloadname}')>"

    @property
    def op(self: Any) -> Callable[..., Any]:
        """The function that callers reach."""
        found: Callable[..., Any] = self.entry
        return found

    @property
    def overloadpacket(self: Any) -> Any:
        """All overloads of this name."""
        return self.packet

    @property
    def is_builtin(self: Any) -> bool:
        """Whether it is polyop's own."""
        core: bool = self.namespace == "core"
        return core

    @property
    def _defined_in_python(self) -> bool:
        return True

    _op, _overloadpacket, _name = op, overloadpacket, property(name)

    @property
    def _namespace(self: Any) -> str:
        namespace: str = self.namespace
        return namespace

    @property
    def _tags(self: Any) -> Any:
        return self.tags

    @property
    def _nondeterministic_seeded(self: Any) -> bool:
        return Tag.nondeterministic_seeded in self.tags

    @property
    def _handle(self: Any) -> NoReturn:
        raise OperatorNotFoundError(
            "an operator has no handle beside itself",
            op=self.name(),
            fix="use the operator, or polyop.library.get_kernel(op, key)",
        )

    def _op_dk(self, key: DispatchKey, /, *args: Any, **kwargs: Any) -> Any:
        return load("polyop.library:get_kernel")(self, key)(*args, **kwargs)


class PacketNames:
    """By what else all overloads of a name are reached."""

    __slots__ = ()

    @property
    def op(self) -> Any:
        """What callers reach: the packet itself."""
        return self

    _op = op

    @property
    def _overload_names(self: Any) -> list[str]:
        return list(self._schemas)

    @property
    def _schemas(self: Any) -> dict[str, Any]:
        return {op._schema.overload_name: op._schema for op in self.op_overloads()}

    @property
    def _dir(self: Any) -> list[str]:
        names: list[str] = self.overloads()
        return names


__all__ = ["OverloadNames", "PacketNames"]
