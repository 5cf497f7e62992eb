"""A key for values that are known by what they are, not by what they are equal to."""

from __future__ import annotations

from typing import Any


class Same:
    """Equal to itself alone, and kept alive, so that its id stays its own."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value
