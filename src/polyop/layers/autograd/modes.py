"""`no_grad`, `enable_grad`, `set_grad_enabled` and `inference_mode` (S140)."""

from __future__ import annotations

from polyop.dispatch.context import Word, entered, entered_at_once, word


class no_grad(entered):
    """Records nothing inside.

    Example:
        >>> with no_grad():
        ...     pass
    """

    __slots__ = ()

    def word(self) -> Word:
        """Give the current word with grad mode off."""
        return word().without_grad


class enable_grad(entered):
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
