"""`polyop.ops`: operators as attributes, `polyop.ops.ns.name.overload` (S58).

Objects are made on first use and kept as attributes, so that a look-up costs
what an attribute costs. Names that are removed are forgotten here too.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from polyop.dispatch.attribute_caches import NAMESPACES
from polyop.dispatch.late_operators import LATE_OPERATORS, bring
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverloadPacket
from polyop.dispatch.registry import PACKETS, find_packet
from polyop.errors import OperatorNotFoundError, nearest
from polyop.lazy import load


class OpNamespace:
    """The operators of one namespace, as attributes."""

    def __init__(self, name: str) -> None:
        self.__name__ = name  # no operator is called that

    def __getattr__(self, name: str) -> OpOverloadPacket:
        bring(f"{self.__dict__['__name__']}::{name}")
        # Under the lock: a packet that is removed meanwhile would be kept for good.
        with LOCK:
            packet = find_packet(f"{self.__dict__['__name__']}::{name}")
            NAMESPACES.keep(packet, self.__dict__)  # first: an interrupt may come behind it
            self.__dict__[name] = packet
        return packet

    def __iter__(self) -> Iterator[str]:
        prefix, names = f"{self.__name__}::", dict.fromkeys([*PACKETS, *LATE_OPERATORS])
        return iter([name[len(prefix) :] for name in names if name.startswith(prefix)])

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self})

    def __repr__(self) -> str:
        return f"<polyop.ops.{self.__name__}: {len(list(self))} operators>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (ops, self.__name__))


#: polyop's own higher-order operators that are read when they are first used, and where.
PROVIDED: dict[str, str] = {
    "auto_functionalized": "polyop.hop.auto_functionalize",
    "auto_functionalized_v2": "polyop.hop.auto_functionalize",
    "associative_scan": "polyop.hop.prefixes",
    "checkpoint": "polyop.hop.checkpointing",
    "cond": "polyop.hop.choosing",
    "custom_function_call": "polyop.hop.calls",
    "flat_apply": "polyop.hop.calls",
    "foreach_map": "polyop.hop.wraps",
    "invoke_subgraph": "polyop.hop.wraps",
    "map": "polyop.hop.mapping",
    "out_dtype": "polyop.hop.calls",
    "print": "polyop.hop.calls",
    "scan": "polyop.hop.scanning",
    "while_loop": "polyop.hop.looping",
    "while_loop_carries": "polyop.hop.carries",
    "wrap": "polyop.hop.wraps",
    "wrap_with_autocast": "polyop.hop.wraps",
    "wrap_with_set_grad_enabled": "polyop.hop.wraps",
    "call_custom_autograd_function": "polyop.export.functions",
    "call_delegate": "polyop.export.delegate",
    "call_object": "polyop.objects.calls",
    "with_effects": "polyop.objects.calls",
}
#: polyop's own namespaces whose operators are defined when the namespace is first used, and where.
LATE: dict[str, str] = {"export": "polyop.export.inner"}


class HigherOrderNamespace:
    """The higher-order operators, as attributes (S68)."""

    def __init__(self) -> None:
        self.table: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        table: dict[str, Any] = self.__dict__["table"]
        if name not in table and name in PROVIDED:
            load(PROVIDED[name])
        if name in table:
            return table[name]
        raise OperatorNotFoundError(
            f"there is no higher-order operator {name!r}{nearest(name, [*table, *PROVIDED])}",
            fix="import the module that makes it",
        )

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.table, *PROVIDED]))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self})


class Ops:
    """All namespaces, as attributes."""

    def __init__(self) -> None:
        self.loaded_libraries: set[str] = set()
        self.higher_order = HigherOrderNamespace()

    def __getattr__(self, name: str) -> OpNamespace:
        if name.startswith("__"):
            raise OperatorNotFoundError(f"there is no namespace {name!r}")
        if name in LATE:
            load(LATE[name])
        found: OpNamespace = self.__dict__.setdefault(name, OpNamespace(name))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.partition("::")[0] for name in list(PACKETS)))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self})

    def __reduce__(self) -> str:
        return "ops"

    def import_module(self, name: str) -> ModuleType:
        """Import a module for the operators that it registers."""
        return importlib.import_module(name)

    def load_library(self, path: str | os.PathLike[str]) -> None:
        """Load a shared library of kernels, with its symbols global (S67).

        What it was built from is a file in C with `#include "polyop.h"`, which
        lies in `polyop.get_include()`. Loading a library again does nothing.

        Raises:
            OSError: it cannot be loaded; the text has the path.
            RegistrationError: it was built for another `polyop.h`, has changed
                since it was loaded, or has an operator that is refused; nothing
                is registered then.
        """
        # Read when it is first used: most programs load no library.
        self.loaded_libraries.add(load("polyop.dispatch.shared_library:load_library")(path))


ops = Ops()
__all__ = ["HigherOrderNamespace", "OpNamespace", "Ops", "ops"]
