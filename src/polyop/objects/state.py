"""The state of an opaque object that a function reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polyop.objects.guards import guards_of


@dataclass(frozen=True, slots=True)
class State:
    """An opaque object: a program relies on what it is guarded by, a capture changes nothing."""

    scope: Any
    guards: tuple[Any, ...]
    inside: tuple[Any, ...]
    name: str = ""

    def same(self) -> bool:
        """Tell whether what programs rely on is as it was."""
        return guards_of(self.scope) == self.guards

    def untouched(self) -> bool:
        """Tell whether all that can be seen of the object is as it was."""
        return all(one.untouched() for one in self.inside)

    def restore(self) -> None:
        """Give the attributes what they had."""
        for one in self.inside:
            one.restore()
