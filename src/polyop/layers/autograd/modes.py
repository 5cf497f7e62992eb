"""`no_grad`, `enable_grad`, `set_grad_enabled` and `inference_mode` (S140)."""

from __future__ import annotations

from typing import Any, Self

from polyop.dispatch.context import Word, entered, entered_at_once, word
from polyop.errors import UsageTypeError


class block(entered):
    """A block, and a decorator with or without parentheses."""

    __slots__ = ()

    def __new__(cls, fn: Any = None) -> Self:
        """Make a block; of a function alone, one that runs in such blocks."""
        made = object.__new__(cls)
        if fn is None:
            return made
        if not callable(fn):
            raise UsageTypeError(f"{cls.__name__} decorates a function", seen=repr(fn),
                                 fix=f"write {cls.__name__}() for a block")  # fmt: skip
        return made(fn)  # type: ignore[no-any-return]


class no_grad(block):
    """Records nothing inside.

    Example:
        >>> with no_grad():
        ...     pass
    """

    __slots__ = ()

    def word(self) -> Word:
        """Give the current word with grad mode off."""
        return word().without_grad


class enable_grad(block):
    """Records inside, also within `no_grad`."""

    __slots__ = ()

    def word(self) -> Word:
        """Give the current word with grad mode on."""
        return word().with_grad


class set_grad_enabled(entered_at_once):
    """Sets grad mode: at once, or for a block or function."""

    __slots__ = ("_mode",)

    def __init__(self, mode: bool) -> None:
        self._mode = mode
        super().__init__()

    def word(self) -> Word:
        """Give the current word with grad mode as asked."""
        return word().with_grad if self._mode else word().without_grad


class inference_mode(entered):
    """Records nothing inside, for good: what is made there cannot be saved for backward."""

    __slots__ = ("_mode",)

    def __new__(cls, mode: Any = True) -> Self:
        """Make a block; of a function alone, one that runs in inference mode."""
        return cls()(mode) if callable(mode) else object.__new__(cls)

    def __init__(self, mode: bool = True) -> None:
        self._mode = mode

    def word(self) -> Word:
        """Give the current word with inference mode as asked."""
        return word().but(inference=self._mode, grad=not self._mode and word().grad)


def is_grad_enabled() -> bool:
    """Tell whether calls are recorded."""
    return word().grad


def is_inference_mode_enabled() -> bool:
    """Tell whether inference mode is on."""
    return word().inference
