"""The variables of the process: a program relies on those that code names, or on all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from polyop.objects.held import Held, held
from polyop.objects.names import SETTINGS, Named
from polyop.objects.reads import Read, read
from polyop.objects.scopes import Fields


class Setting(Fields):
    """A variable of the process."""

    __slots__ = ()

    def get(self, name: str, default: Any) -> Any:
        """Give it."""
        return self.owner.get(name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        self.owner[name] = value

    def pop(self, name: str, default: Any) -> None:
        """Take it away."""
        self.owner.pop(name, default)


def is_setting(value: Any) -> bool:
    """Tell whether a value is the variables of the process, or gives one of them."""
    return any(value is one for one in _GIVING)


_NAMES = ("environ", "environb", "getenv", "getenvb")  # not each system has each
_GIVING = tuple(getattr(os, name) for name in _NAMES if hasattr(os, name))


class Asked:
    """What a function asks of the variables of the process."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.names: set[str] = set()
        self.computed = False

    def of(self, code: Named) -> None:
        """Note what some code asks for."""
        self.computed = self.computed or code.settings is None
        self.names |= code.settings or frozenset()

    def reads(self, names_of: Callable[[Any], Iterable[str]]) -> Iterator[Read | Held]:
        """Look at what is asked for.

        Args:
            names_of: lists the names by which code may have reached a value.
        """
        if not self.values:
            return
        if self.computed or not all(SETTINGS.issuperset(names_of(x)) for x in self.values):
            yield held(vars(os.environ)["_data"], "environ")
            return
        for name in sorted(self.names):
            yield read(Setting(os.environ), name)
