"""Who answers at the key Python, when it is more than one mode (S113, S164).

In this order: the modes, innermost first; the infra modes; the subclasses of
the call's tensors. Each is asked by the operator's own rule for its class, if
there is one, else by its `__dispatch__`; `NotImplemented` sends the call on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from polyop.dispatch.bits import FAKE, FAKE_MODE, MODES, SUBCLASS, TRACE
from polyop.dispatch.class_slots import PREFIX, slot_of
from polyop.dispatch.context import Word, run_under, word
from polyop.dispatch.counts import bump_in
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.resolve import Way
from polyop.dispatch.results import answer_of, tensors_in
from polyop.dispatch.shortened import shortened
from polyop.errors import UnhandledDispatchError, UsageTypeError

Classes = tuple[type, ...]


def disabled_dispatch(cls: type, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """Stand as `__dispatch__` of a class whose tensors are dealt with as plain ones."""
    return NotImplemented


def dispatches(cls: type) -> bool:
    """Tell whether calls with tensors of a class go to it."""
    found = getattr(cls, "__dispatch__", None)
    return found is not None and getattr(found, "__func__", found) is not disabled_dispatch


def subclasses_in(values: Sequence[Any]) -> Classes:
    """List the classes with `__dispatch__`: a derived one before its base, else from the left."""
    found: list[type] = []
    for tensor in tensors_in(tuple(values)):
        cls = type(tensor)
        if tensor.keys & SUBCLASS and cls not in found and dispatches(cls):
            at = next((i for i, other in enumerate(found) if issubclass(cls, other)), len(found))
            found.insert(at, cls)
    return tuple(found)


# -- rules --------------------------------------------------------------------


def has_rules(op: OpOverload) -> bool:
    """Tell whether an operator has rules of its own for modes or subclasses."""
    # Not by attribute, which would make the table.
    return bool(op.__dict__.get("python_key_table")) or any(
        slot.startswith(PREFIX) for slot in op.slots()
    )


Rule = Callable[[Any, Classes, Any, Any], Any]


def rule_for(op: OpOverload, cls: type, mode: Any = None) -> Rule | None:
    """Give an operator's rule for a class, called `(cls or mode, types, args, kwargs)`."""
    own = op.rule_for(cls)
    if own is not None:
        first = () if mode is None else (mode,)
        return lambda _, __, args, kwargs: own(*first, *args, **kwargs)
    slot = slot_of(cls)
    given = None if slot is None else op.rule(slot)
    if given is None:
        return None
    return lambda who, types, args, kwargs: given(who, op, types, args, kwargs)


def ask(op: OpOverload, who: Any, types: Classes, args: Any, kwargs: Any) -> Any:
    """Ask a mode, or a class, for the result.

    Raises:
        ReturnError: it is not what the schema declares.
    """
    is_class = isinstance(who, type)
    rule = rule_for(op, who, None) if is_class else rule_for(op, type(who), who)
    given = (rule or _own_dispatch(op, who))(who, types, args, kwargs)
    return given if given is NotImplemented else answer_of(op, given, args, who)


def _own_dispatch(op: OpOverload, who: Any) -> Rule:
    return lambda _, types, args, kwargs: who.__dispatch__(op, types, args, kwargs)


# -- the chain ----------------------------------------------------------------


def general(way: Way) -> Handler | None:
    """Make the handler that asks everybody in turn, or None if there is nobody to ask."""
    op = way.op
    if not way.code & (MODES | SUBCLASS | TRACE | FAKE_MODE | FAKE):
        return None
    below = _below(way)

    def call(*values: Any) -> Any:
        now = word()
        args, kwargs = shortened(op, values)
        types = subclasses_in(values) if way.code & SUBCLASS else ()
        asked: list[str] = []
        for mode, under in now.chain if way.code & MODES else ():
            result = run_under(under, ask, op, mode, types, args, kwargs)
            if result is not NotImplemented:
                return result
            asked.append(type(mode).__name__)
        return _go_on(way, values, (args, kwargs, types), asked, below)

    return call


def declined(way: Way) -> Callable[[Word, Sequence[Any], Any, Any], Any]:
    """Make what goes on when the innermost mode has declined."""
    op, below = way.op, _below(way)

    def others(now: Word, values: Sequence[Any], args: Any, kwargs: Any) -> Any:
        asked = [type(now.top[0]).__name__]
        for mode, under in now.chain[1:]:
            result = run_under(under, ask, op, mode, (), args, kwargs)
            if result is not NotImplemented:
                return result
            asked.append(type(mode).__name__)
        return _go_on(way, values, (args, kwargs, ()), asked, below)

    return others


def _below(way: Way) -> Handler:
    """Give the handler below, which is found when a call first gets there."""
    found: list[Handler] = []

    def call(*values: Any) -> Any:
        if not found:
            found.append(way.handler())
        return found[0](*values)

    return call


Given = tuple[tuple[Any, ...], dict[str, Any], Classes]


def _go_on(way: Way, values: Sequence[Any], given: Given, asked: list[str], below: Handler) -> Any:
    """Ask polyop's own infra modes, then the subclasses, then nobody."""
    op, now = way.op, word()
    args, kwargs, types = given
    for mode, under in own_infra(now, values) if has_rules(op) else ():
        rule = rule_for(op, type(mode), mode)
        if rule is not None:
            result = run_under(under, ask, op, mode, types, args, kwargs)
            if result is not NotImplemented:
                return result
            asked.append(type(mode).__name__)
    if types:
        return _ask_subclasses(op, values, given, asked)
    if not asked or way.code & (TRACE | FAKE_MODE | FAKE):
        return run_under(now.but(modes=(), infra=()), below, *values) if asked else below(*values)
    return unhandled(op, asked)


def _ask_subclasses(op: OpOverload, values: Sequence[Any], given: Given, asked: list[str]) -> Any:
    args, kwargs, types = given
    for i, argument in enumerate(op._schema.arguments):
        if argument.is_write:
            # The subclass writes what is inside of it; autograd looks at the count of this one.
            bump_in(op, [t for t in tensors_in(values[i]) if t.keys & SUBCLASS])
    for cls in types:
        result = run_under(word().beneath, ask, op, cls, types, args, kwargs)
        if result is not NotImplemented:
            return result
        asked.append(cls.__name__)
    return unhandled(op, asked)


def unhandled(op: OpOverload, asked: Sequence[str]) -> NoReturn:
    """Raise the error of a call that everybody declined."""
    raise UnhandledDispatchError(
        f"no mode or subclass handles {op.name()}",
        op=op._schema,
        seen=f"{', '.join(asked)} each returned NotImplemented",
        source=op.source,
        fix="return op(*args, **kwargs) for operators that a mode does not know, and deal with "
        "what is inside for a subclass",
    )


# -- polyop's own infra modes -------------------------------------------------


def own_infra(now: Word, values: Sequence[Any]) -> Iterator[tuple[Any, Word]]:
    """List polyop's own tracer and fake mode in a call, each with the word of its rules.

    A fake whose mode is not entered brings it along.
    """
    if now.tracer is not None:
        yield now.tracer, now.but(modes=(), tracer=None, below=True)
    fake = now.fake
    for tensor in tensors_in(tuple(values)) if fake is None else ():
        if tensor.keys & FAKE:
            fake = tensor.payload.space.mode
    if fake is not None:
        yield fake, now.but(modes=(), tracer=None, fake=None, below=True)


def check_classmethod(cls: type) -> None:
    """Check that `__dispatch__` of a subclass is a classmethod.

    Raises:
        UsageTypeError: there is none, or it is something else.
    """
    found = next((vars(c)["__dispatch__"] for c in cls.__mro__ if "__dispatch__" in vars(c)), None)
    if found is None or not (isinstance(found, classmethod) or found is disabled_dispatch):
        raise UsageTypeError(
            f"{cls.__name__} has no classmethod __dispatch__",
            declared="__dispatch__(cls, op, types, args=(), kwargs=None)",
            seen="nothing of that name" if found is None else type(found).__name__,
            fix="add one: @classmethod def __dispatch__(cls, op, types, args=(), kwargs=None)",
        )


__all__ = [
    "ask", "check_classmethod", "declined", "disabled_dispatch", "dispatches", "general",
    "has_rules", "own_infra", "rule_for", "subclasses_in", "unhandled",
]  # fmt: skip
