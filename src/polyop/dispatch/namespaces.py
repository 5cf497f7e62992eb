"""`polyop.ops`: operators as attributes, `polyop.ops.ns.name.overload` (S58).

Objects are made on first use and kept as attributes, so that a look-up costs
what an attribute costs. Names that are removed are forgotten here too.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from polyop.dispatch.operator import OpOverloadPacket
from polyop.dispatch.registry import NAMESPACES, PACKETS, find_packet
from polyop.errors import OperatorNotFoundError, nearest


class OpNamespace:
    """The operators of one namespace, as attributes."""

    def __init__(self, name: str) -> None:
        self.__name__ = name  # no operator is called that
        NAMESPACES.caches.append(self.__dict__)

    def __getattr__(self, name: str) -> OpOverloadPacket:
        packet = find_packet(f"{self.__dict__['__name__']}::{name}")
        self.__dict__[name] = packet
        return packet

    def __iter__(self) -> Iterator[str]:
        prefix = f"{self.__name__}::"
        return iter([name[len(prefix) :] for name in list(PACKETS) if name.startswith(prefix)])

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def __repr__(self) -> str:
        return f"<polyop.ops.{self.__name__}: {len(list(self))} operators>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (ops, self.__name__))


class HigherOrderNamespace:
    """The higher-order operators, as attributes (S68)."""

    def __init__(self) -> None:
        self.table: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        table: dict[str, Any] = self.__dict__["table"]
        if name in table:
            return table[name]
        raise OperatorNotFoundError(
            f"there is no higher-order operator {name!r}{nearest(name, table)}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.table]


class Ops:
    """All namespaces, as attributes."""

    def __init__(self) -> None:
        self.loaded_libraries: set[str] = set()
        self.higher_order = HigherOrderNamespace()

    def __getattr__(self, name: str) -> OpNamespace:
        if name.startswith("__"):
            raise OperatorNotFoundError(f"there is no namespace {name!r}")
        namespace = OpNamespace(name)
        self.__dict__[name] = namespace
        return namespace

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.partition("::")[0] for name in list(PACKETS)))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def __reduce__(self) -> str:
        return "ops"

    def import_module(self, name: str) -> ModuleType:
        """Import a module for the operators that it registers."""
        return importlib.import_module(name)

    def load_library(self, path: str | os.PathLike[str]) -> None:
        """Load a shared library of kernels, with its symbols global (S67).

        Raises:
            OSError: it cannot be loaded; the text has the path.
        """
        full = os.path.abspath(os.fspath(path))
        try:
            ctypes.CDLL(full, mode=getattr(ctypes, "RTLD_GLOBAL", 0))
        except OSError as error:
            raise OSError(f"cannot load the library {full}: {error}") from error
        self.loaded_libraries.add(full)


ops = Ops()
__all__ = ["HigherOrderNamespace", "OpNamespace", "Ops", "ops"]
