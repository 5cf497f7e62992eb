"""What an operator tells of itself, the same for every form of it; read when it is asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from polyop.lazy import load


class Told:
    """What all forms of an operator are asked."""

    __slots__ = ()

    def explain(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Tell which kernel a call would run, and why; see `polyop.library.explain`."""
        return load("polyop.checking.explain:explain")(self, *args, **kwargs)

    def capabilities(self: Any, on: str | Iterable[str] | None = None) -> Any:
        """Find out what it can do on which library; see `polyop.library.capabilities`."""
        return load("polyop.checking.capabilities:capabilities")(self, on)
