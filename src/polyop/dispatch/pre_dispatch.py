"""The pre-dispatch stack: modes that meet a call before anything else acts on it (S114 to S116).

It has three places: one for the tracing mode, one for the functionalizing
mode, and one for a mode that checks schemas, which excludes the others. It
stands in the word, so each thread and task has its own, and the key
PreDispatch is there exactly while a mode is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.dispatch.bits import PRE_DISPATCH, SUBCLASS, WRAPPED
from polyop.dispatch.context import Word, run_under, set_word, word
from polyop.dispatch.infra_modes import ModeKey
from polyop.dispatch.keys import DispatchKey, functionality_of
from polyop.dispatch.operator import Handler
from polyop.dispatch.python_key import ask, subclasses_in, unhandled
from polyop.dispatch.resolve import LAYERS, Way, excluded
from polyop.dispatch.shortened import shortened
from polyop.errors import ModeError

#: The places of the stack; the last one set of these, from the back, is the current mode.
PROXY, FUNCTIONAL, SCHEMA_CHECK = range(3)
_PLACE = {ModeKey.PROXY: PROXY, ModeKey.FUNCTIONAL: FUNCTIONAL}


def set_mode_pre_dispatch(mode: Any) -> None:
    """Put a mode on the pre-dispatch stack of the current context.

    Raises:
        ModeError: its place is taken, a mode that checks schemas is beside another, or it
            is of a kind that has no place here.
    """
    set_word(with_pre_dispatch(word(), mode))


def with_pre_dispatch(now: Word, mode: Any) -> Word:
    """Give a word with one more mode on the pre-dispatch stack."""
    place = _place_of(mode)
    stack = list(now.pre or (None, None, None))
    held = stack[SCHEMA_CHECK] if place != SCHEMA_CHECK else _current(now.pre)
    if held is not None and SCHEMA_CHECK in {place, stack.index(held)}:
        raise ModeError(
            "a mode that checks schemas is alone on the pre-dispatch stack",
            seen=f"{type(held).__name__} is set already, and {type(mode).__name__} is to be set",
            fix=f"take {type(held).__name__} off first: unset_mode_pre_dispatch",
        )
    if stack[place] is not None:
        raise ModeError(
            f"the place of {type(mode).__name__} on the pre-dispatch stack is taken",
            seen=f"{type(stack[place]).__name__} is there",
            fix="take it off first: unset_mode_pre_dispatch",
        )
    stack[place] = mode
    return now.but(pre=tuple(stack))


def _place_of(mode: Any) -> int:
    if getattr(mode, "checks_schemas", False):
        return SCHEMA_CHECK
    key = getattr(mode, "mode_key", None)
    if key not in _PLACE or isinstance(mode, type):
        raise ModeError(
            f"{mode if isinstance(mode, type) else type(mode).__name__} has no place on the "
            "pre-dispatch stack",
            declared="a tracing mode, a functionalizing mode, or SchemaCheckMode",
            fix="enter it with `with`, for the key Python",
        )
    return _PLACE[key]


def unset_mode_pre_dispatch(mode_key: Any, schema_check: bool = False) -> Any:
    """Take a mode off the pre-dispatch stack, and give it; None if there is none.

    Args:
        mode_key: `ModeKey.PROXY` or `ModeKey.FUNCTIONAL`; None for the mode that checks schemas.
        schema_check: take off that one; it goes with None.

    Raises:
        ModeError: another key, or `schema_check` beside a key.
    """
    if schema_check and mode_key is not None:
        raise ModeError(
            "schema_check=True says which mode is meant, and so does a key",
            seen=repr(mode_key),
            fix="give mode_key=None with schema_check=True",
        )
    return _take(SCHEMA_CHECK if mode_key is None else _place(mode_key))


def _place(mode_key: Any) -> int:
    if not isinstance(mode_key, ModeKey) or mode_key not in _PLACE:
        raise ModeError(
            "no such key on the pre-dispatch stack",
            declared="ModeKey.PROXY or ModeKey.FUNCTIONAL",
            seen=repr(mode_key),
        )
    return _PLACE[mode_key]


def _take(place: int) -> Any:
    now = word()
    if not now.pre:
        return None
    set_word(now.but(pre=_without(now.pre, place)))
    return now.pre[place]


def _without(stack: Sequence[Any], place: int) -> tuple[Any, ...]:
    rest = tuple(None if i == place else mode for i, mode in enumerate(stack))
    return rest if any(mode is not None for mode in rest) else ()


def pop_mode_pre_dispatch() -> Any:
    """Take the current mode off the pre-dispatch stack, and give it.

    Raises:
        ModeError: the stack is empty.
    """
    stack = word().pre
    if not stack:
        raise ModeError(
            "the pre-dispatch stack is empty", fix="set a mode first: set_mode_pre_dispatch"
        )
    return _take(_top(stack))


def get_mode_pre_dispatch(mode_key: Any) -> Any:
    """Give the mode at `ModeKey.PROXY` or `ModeKey.FUNCTIONAL`, or None.

    Raises:
        ModeError: another key.
    """
    place, stack = _place(mode_key), word().pre
    return stack[place] if stack else None


def current_mode_pre_dispatch() -> Any:
    """Give the mode that meets the next call: that checks schemas, else FUNCTIONAL, else PROXY."""
    return _current(word().pre)


def _current(stack: Sequence[Any]) -> Any:
    return stack[_top(stack)] if stack else None


def _top(stack: Sequence[Any]) -> int:
    return max(i for i, mode in enumerate(stack) if mode is not None)


def len_mode_stack_pre_dispatch() -> int:
    """Count the modes on the pre-dispatch stack."""
    return sum(mode is not None for mode in word().pre)


# -- the layer ----------------------------------------------------------------


def chain(now: Word) -> list[tuple[Any, Word]]:
    """Give the modes, the current one first, each with the word without it; made once per word."""
    made: list[tuple[Any, Word]] | None = now.__dict__.get("_pre_chain")
    if made is None:
        made = now.__dict__["_pre_chain"] = []
        stack = now.pre
        while stack:
            place = _top(stack)
            mode, stack = stack[place], _without(stack, place)
            made.append((mode, now.but(pre=stack)))
    return made


def acts(now: Word) -> bool:
    """Tell whether a mode of the stack meets the next call of plain tensors."""
    return bool(now.pre) and not excluded(int(now)).has(DispatchKey.Python)


class PreDispatchLayer:
    """Hands a call to the current mode of the pre-dispatch stack."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler, if a mode is set and neither Python nor a transform is in the way.

        What belongs to a transform goes to it first; the calls that the
        transform makes come back here.
        """
        again = sum(key is DispatchKey.PreDispatch for key in way.acted) > 1
        if not way.code & PRE_DISPATCH or way.code & WRAPPED or again:
            return None
        if excluded(way.code).has(DispatchKey.Python):
            return None
        return _to_modes(way)


def _to_modes(way: Way) -> Handler:
    op = way.op

    def call(*values: Any) -> Any:
        args, kwargs = shortened(op, values)
        types = subclasses_in(values) if way.code & SUBCLASS else ()
        for mode, under in chain(word()):
            result = run_under(under, ask, op, mode, types, args, kwargs)
            if result is not NotImplemented:
                return result
        if types:
            # Autograd first: the subclasses are asked below it.
            return way.handler()(*values)
        return unhandled(op, [type(mode).__name__ for mode, _ in chain(word())])

    return call


LAYERS.setdefault(functionality_of(DispatchKey.PreDispatch), []).append(PreDispatchLayer())
