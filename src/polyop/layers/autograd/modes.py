"""`no_grad`, `enable_grad`, `set_grad_enabled` and `inference_mode` (S140)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from polyop.dispatch.context import Word, entered, entered_at_once, word
from polyop.errors import ArgumentError, UsageTypeError
from polyop.schema.model import MISSING


class block(entered):
    """A block, and a decorator with or without parentheses."""

    __slots__ = ()

    def __new__(cls, fn: Any = None, *rest: Any, **named: Any) -> Self:
        """Make a block; of a function alone, one that runs in such blocks."""
        if rest or named:
            given = rest if fn is None else (fn, *rest)
            raise _otherwise(cls, "nothing, or one function", given, named)
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

    def __init__(self, mode: Any = MISSING, *rest: Any, **named: Any) -> None:
        if mode is MISSING or rest or named:
            given = () if mode is MISSING else (mode, *rest)
            raise _otherwise(type(self), "one bool, mode", given, named)
        self._mode = _checked(type(self), mode)
        super().__init__()

    def word(self) -> Word:
        """Give the current word with grad mode as asked."""
        return word().with_grad if self._mode else word().without_grad


class inference_mode(entered):
    """Records nothing inside, for good: what is made there cannot be saved for backward."""

    __slots__ = ("_mode",)

    def __new__(cls, mode: Any = True, *rest: Any, **named: Any) -> Self:
        """Make a block; of a function alone, one that runs in inference mode."""
        if rest or named:
            raise _otherwise(cls, "nothing, one bool, or one function", (mode, *rest), named)
        return cls()(mode) if callable(mode) else object.__new__(cls)

    def __init__(self, mode: bool = True) -> None:
        self._mode = _checked(type(self), mode)

    def word(self) -> Word:
        """Give the current word with inference mode as asked."""
        return word().but(inference=self._mode, grad=not self._mode and word().grad)


def _checked(cls: type, mode: Any) -> bool:
    if isinstance(mode, (bool, np.bool_)):
        return bool(mode)
    raise UsageTypeError(
        f"{cls.__name__} is told by a bool whether it is on",
        argument="mode",
        declared="bool",
        seen=f"{mode!r:.80}",
        fix=f"write {cls.__name__}(True) or {cls.__name__}(False)",
    )


def _otherwise(
    cls: type, takes: str, args: Sequence[Any], named: Mapping[str, Any]
) -> ArgumentError:
    said = [*[f"{x!r:.40}" for x in args], *[f"{name}={x!r:.40}" for name, x in named.items()]]
    name = cls.__name__
    return ArgumentError(
        f"{name} takes {takes}",
        declared=takes,
        seen=f"{name}({', '.join(said)})",
        fix=f"write `with {name}({'' if takes.startswith('nothing') else 'False'}):`",
    )


def is_grad_enabled() -> bool:
    """Tell whether calls are recorded."""
    return word().grad


def is_inference_mode_enabled() -> bool:
    """Tell whether inference mode is on."""
    return word().inference
