"""Guards: what a capture relied on, and what its inputs must be again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from polyop.source import UNKNOWN, Source
from polyop.symbolic.bounds import Bound
from polyop.symbolic.expr import Apply, Const, Expr


class Claim(Protocol):
    """What a guard asks of its condition."""

    def evaluate(self, bindings: Mapping[str, int]) -> bool:
        """Tell whether it holds, for values of symbols and sources."""

    def rebuild(self, leaf: Callable[[str], Any], const: Const, apply: Apply) -> Any:
        """Compute it in another world."""

    def symbols(self) -> tuple[str, ...]:
        """Give the names that it needs a value for."""


class Guard(NamedTuple):
    """A condition that must hold, where in the user's program it came from, and why.

    `holds` takes the answer of `ShapeEnv.bind`.
    """

    condition: Claim
    place: Source = UNKNOWN
    message: str = ""

    @property
    def text(self) -> str:
        """The condition as Python writes it."""
        return str(self.condition)

    def holds(self, bindings: Mapping[str, int]) -> bool:
        """Tell whether it holds, for values of symbols and sources."""
        try:
            return self.condition.evaluate(bindings)
        except ZeroDivisionError:
            return False  # these sizes are another program's, and it is that one that raises

    def __str__(self) -> str:
        return f"{self.text}  # {self.message or self.place}"


class SameSize(NamedTuple):
    """An input size is the one that the capture took it to be."""

    source: str
    size: Expr

    def evaluate(self, bindings: Mapping[str, int]) -> bool:
        """Tell whether it holds, for values of symbols and sources."""
        return bool(bindings[self.source] == self.size.evaluate(bindings))

    def rebuild(self, leaf: Callable[[str], Any], const: Const, apply: Apply) -> Any:
        """Compute it in another world, where a source is a leaf too."""
        return apply("eq", leaf(self.source), self.size.rebuild(leaf, const, apply))

    def symbols(self) -> tuple[str, ...]:
        """Give the names that it needs a value for."""
        return (self.source, *self.size.symbols())

    def __str__(self) -> str:
        return f"{self.source} == {self.size}"


class InRange(NamedTuple):
    """A size lies between two ends."""

    name: str
    lo: Bound
    hi: Bound

    def evaluate(self, bindings: Mapping[str, int]) -> bool:
        """Tell whether it holds, for values of symbols and sources."""
        return self.lo <= bindings[self.name] <= self.hi

    def rebuild(self, leaf: Callable[[str], Any], const: Const, apply: Apply) -> Any:
        """Compute it in another world."""
        sides = []
        if isinstance(self.lo, int):
            sides.append(apply("ge", leaf(self.name), const(self.lo)))
        if isinstance(self.hi, int):
            sides.append(apply("ge", const(self.hi), leaf(self.name)))
        return apply("and", *sides) if len(sides) == 2 else sides[0] if sides else const(True)

    def symbols(self) -> tuple[str, ...]:
        """Give the names that it needs a value for."""
        return (self.name,)

    def __str__(self) -> str:
        lo = f"{self.lo} <= " if isinstance(self.lo, int) else ""
        return f"{lo}{self.name}" + (f" <= {self.hi}" if isinstance(self.hi, int) else "")
