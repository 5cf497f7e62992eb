"""Modes: what a user enters to meet every call of a block (S113, S161 to S166).

A mode is on the stack of the word. The layer takes the innermost mode off,
for the call, and hands it the operator: out first, because the mode may call
operators, this one too, and must meet the modes around it, never itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from polyop.dispatch.bits import MODES, SUBCLASS
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import (
    blocks_inside,
    close_block,
    open_block,
    set_word,
    word,
)
from polyop.dispatch.infra_modes import ModeKey, with_mode
from polyop.dispatch.operator import Handler
from polyop.dispatch.python_key import declined, general, has_rules
from polyop.dispatch.resolve import Way
from polyop.dispatch.results import answer_of
from polyop.dispatch.shortened import default_scope, shortened_text, written
from polyop.dispatch.write import base_scope, shape_of, spelled_tuple
from polyop.errors import ModeError


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
    #: The slot of an infra mode; user modes have none.
    mode_key: ClassVar[ModeKey | None] = None

    @classmethod
    def is_infra_mode(cls) -> bool:
        """Tell whether it goes into a slot behind all user modes (S162)."""
        return cls.mode_key is not None

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
        raise ModeError(
            f"the mode {type(self).__name__} has no __dispatch__",
            op=op.name(),
            fix=f"define {type(self).__name__}.__dispatch__(self, op, types, args=(), kwargs=None)",
        )

    def __enter__(self) -> Any:
        open_block(self, lambda: with_mode(word(), self))
        return self

    def __exit__(self, *error: object) -> None:
        inner = [b for b in blocks_inside(self) if isinstance(b, DispatchMode)]
        now = word()
        if not inner or any(part is not None for part in error):
            # An error, that of a dropped generator too, passes once: it is left now or never.
            close_block(self)
        if inner:
            raise ModeError(
                f"{type(self).__name__} is left, and is not the innermost mode",
                seen=", ".join(type(m).__name__ for m, _ in now.chain) or "no mode",
                fix="leave modes in the order opposite to their entering: use `with`",
            )


# -- the layer ----------------------------------------------------------------


class ModesLayer:
    """Hands the call to the innermost mode; whatever is not that simple is `python_key`'s."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler, if a mode is on the stack or a subclass in the call."""
        if way.code & SUBCLASS or has_rules(way.op):
            return general(way)
        return _innermost(way) if way.code & MODES else None


def _innermost(way: Way) -> Handler:
    """Write the handler of a call that goes to a mode, in one frame."""
    op, shape = way.op, shape_of(way.op._schema)
    names = spelled_tuple(shape.names)
    lines = [
        *shortened_text(op, shape),
        "_w = word()",
        # Out first, so that the handler meets the modes around this one.
        "_mode, _under = _w.top",
        "try: _token = set_word(_under); _r = _mode.__dispatch__(op, (), _args, _kw)",
        "except BaseException: set_word(_w); raise",
        "reset_word(_token)",
        f"if _r is NotImplemented: return declined(_w, {names}, _args, _kw)",
        f"return answer(op, _r, {names}, _mode)",
    ]
    if result_forms(op._schema) == (("new", -1),):
        lines.insert(-2, "if _r.__class__ is Tensor: return _r")
    scope = base_scope(op, declined=declined(way), answer=answer_of, **default_scope(op))
    return written(op, shape, lines, scope)


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
    try:
        set_word(now.but(modes=now.modes[:-1]))
        yield now.modes[-1]
    finally:
        set_word(now)


@contextmanager
def disable_current_modes() -> Iterator[tuple[Any, ...]]:
    """Take all modes, traces and fakes off for a block; gives the modes."""
    now = word()
    try:
        set_word(now.but(modes=(), infra=(), pre=(), tracer=None, fake=None, functional=None))
        yield now.modes
    finally:
        set_word(now)
