"""Context managers that change the include and exclude sets for a block (S96, S97)."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.context import AUTOGRAD, Word, entered, word
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.resolve import excluded, included

VIEWS = DispatchKeySet([DispatchKey.ADInplaceOrView])


def included_keys() -> DispatchKeySet:
    """Give the keys that the context adds to every call."""
    return included(int(word()))


def excluded_keys() -> DispatchKeySet:
    """Give the keys that the context takes out of every call."""
    return excluded(int(word()))


class include_keys(entered):
    """Add keys to every call of a block."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Any) -> None:
        self._keys = DispatchKeySet(keys)

    def word(self) -> Word:
        """Give the current word with more keys included."""
        now = word()
        return now.but(include=now.include | self._keys)


class enable_python_dispatcher(include_keys):
    """Let kernels at PythonDispatcher act on every call of a block, before all others (S95)."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(DispatchKey.PythonDispatcher)


class exclude_keys(entered):
    """Take keys out of every call of a block."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Any) -> None:
        self._keys = DispatchKeySet(keys)

    def word(self) -> Word:
        """Give the current word with more keys excluded."""
        now = word()
        return now.but(exclude=now.exclude | self._keys)


class force_keys(entered):
    """Set both sets exactly."""

    __slots__ = ("_exclude", "_include")

    def __init__(self, include: Any, exclude: Any) -> None:
        self._include = DispatchKeySet(include)
        self._exclude = DispatchKeySet(exclude)

    def word(self) -> Word:
        """Give the current word with these sets."""
        return word().but(include=self._include, exclude=self._exclude)


class preserve_keys(entered):
    """Put both sets back at the end of a block."""

    __slots__ = ()

    def word(self) -> Word:
        """Give the current word."""
        return word()


class below_autograd(exclude_keys):
    """Run a block below autograd."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(AUTOGRAD)


class below_views(exclude_keys):
    """Run a block below autograd, versions and views."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(AUTOGRAD | VIEWS)
