"""Modes: what a user enters to meet every call of a block (S113, S161 to S166).

A mode is on the stack of the word. The layer takes the innermost mode off,
for the call, and hands it the operator: out first, because the mode may call
operators, this one too, and must meet the modes around it, never itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from polyop.dispatch.bits import MODES
from polyop.dispatch.context import Word, reset_word, run_under, set_word, word
from polyop.dispatch.keys import DispatchKey, functionality_of
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.resolve import LAYERS, Way
from polyop.errors import ModeError, UnhandledDispatchError


class DispatchMode:
    """Base of modes: define `__dispatch__(self, op, types, args=(), kwargs=None)`.

    Example:
        >>> import polyop
        >>> from polyop.extend import DispatchMode
        >>> class Count(DispatchMode):
        ...     calls = 0
        ...     def __dispatch__(self, op, types, args=(), kwargs=None):
        ...         self.calls += 1
        ...         return op(*args, **(kwargs or {}))
        >>> with Count() as count:
        ...     _ = polyop.zeros(2) + polyop.ones(2)
        >>> count.calls
        3
    """

    #: Whether higher-order operators without a rule for this mode go to `__dispatch__` too.
    supports_higher_order_operators = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(cls.__dict__.get("__dispatch__"), classmethod):
            raise ModeError(
                f"{cls.__name__}.__dispatch__ is a classmethod",
                fix="define it as an ordinary method: a mode is an object",
            )

    def __dispatch__(
        self, op: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Handle a call; `NotImplemented` sends it on to the next mode outward."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        now = word()
        # The word keeps what undoes it, because a mode may be entered by several threads.
        new = now.but(modes=(*now.modes, self))
        new.__dict__["_entered"] = (self, set_word(new))
        return self

    def __exit__(self, *error: object) -> None:
        mode, token = word().__dict__.get("_entered", (None, None))
        if mode is not self:
            raise ModeError(
                f"{type(self).__name__} is left, and is not the innermost mode",
                seen=", ".join(type(m).__name__ for m in word().modes) or "no mode",
                fix="leave modes in the order opposite to their entering: use `with`",
            )
        reset_word(token)


def shortened(op: OpOverload, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Leave out trailing positional and any keyword arguments that equal their defaults (S65)."""
    arguments = op._schema.arguments
    n = len(op._schema.positional)
    args = list(values[:n])
    while args and _is_default(arguments[len(args) - 1], args[-1]):
        args.pop()
    kwargs = {
        argument.name: value
        for argument, value in zip(arguments[n:], values[n:], strict=True)
        if not _is_default(argument, value)
    }
    return tuple(args), kwargs


def _is_default(argument: Any, value: Any) -> bool:
    if not argument.has_default_value():
        return False
    default = argument.default_value
    if isinstance(default, tuple) and isinstance(value, list):
        return len(default) == len(value) and all(
            type(a) is type(b) and a == b for a, b in zip(default, value, strict=True)
        )
    return default is value or (type(default) is type(value) and bool(default == value))


class ModesLayer:
    """Hands the call to the innermost mode."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler, if some mode is on the stack."""
        if not way.code & MODES:
            return None
        op = way.op

        def call(*values: Any) -> Any:
            now = word()
            args, kwargs = shortened(op, values)
            modes = now.modes
            for i in range(len(modes) - 1, -1, -1):
                below = _below(now, i)
                result = run_under(below, modes[i].__dispatch__, op, (), args, kwargs)
                if result is not NotImplemented:
                    return result
            _unhandled(op, modes)

        return call


def _below(now: Word, i: int) -> Word:
    """Give the word with the first `i` modes only; made once per word."""
    made: dict[int, Word] = now.__dict__.setdefault("_below", {})
    if i not in made:
        made[i] = now.but(modes=now.modes[:i])
    return made[i]


def _unhandled(op: OpOverload, modes: Sequence[Any]) -> NoReturn:
    raise UnhandledDispatchError(
        f"no mode handles {op.name()}",
        op=op._schema,
        seen=", ".join(type(mode).__name__ for mode in modes) + " each returned NotImplemented",
        source=op.source,
        fix="return op(*args, **kwargs) for operators that a mode does not know",
    )


# -- the stack ----------------------------------------------------------------


def dispatch_mode_stack() -> tuple[Any, ...]:
    """Give the user modes, outermost first."""
    return word().modes


def current_dispatch_mode() -> Any:
    """Give the innermost mode, or None."""
    modes = word().modes
    return modes[-1] if modes else None


def is_in_dispatch_mode() -> bool:
    """Tell whether some mode is entered."""
    return bool(word().modes)


@contextmanager
def pop_mode_temporarily() -> Iterator[Any]:
    """Take the innermost mode off the stack for a block, and give it.

    Raises:
        ModeError: the stack is empty.
    """
    now = word()
    if not now.modes:
        raise ModeError("there is no mode to pop", fix="enter one first: with mode: ...")
    token = set_word(now.but(modes=now.modes[:-1]))
    try:
        yield now.modes[-1]
    finally:
        reset_word(token)


@contextmanager
def disable_current_modes() -> Iterator[tuple[Any, ...]]:
    """Take all modes, traces and fakes off for a block; gives the modes."""
    now = word()
    token = set_word(now.but(modes=(), tracer=None, fake=None, functional=None))
    try:
        yield now.modes
    finally:
        reset_word(token)


LAYERS.setdefault(functionality_of(DispatchKey.Python), []).insert(0, ModesLayer())
