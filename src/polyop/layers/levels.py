"""Levels: the running transforms, `vmap` and `grad`, and which of them acts on a call.

A transform wraps its inputs into tensors whose payload is a record of its
own, with `.value` (the tensor below) and `.level`. A call with wrapped tensors
belongs to the innermost level among them; it runs with that level off, so
that outer levels, autograd, fakes and traces act on what it calls, each by
its own keys. Two levels differ by identity: a wrapped tensor that outlives
its transform belongs to a level that is no longer alive, whatever runs then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from polyop.dispatch.bits import BATCHED, LIFTED
from polyop.dispatch.context import Word, set_word, word
from polyop.dispatch.keys import DispatchKey, autograd_key_for
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.resolve import Way, backends_of
from polyop.dispatch.results import tensors_in
from polyop.dispatch.table import Reason
from polyop.errors import AutogradError, PolyopError
from polyop.layers.own_kernels import autocast_kernel, bit_of, call_anew, is_off, own_kernels
from polyop.schema.types import leaf_kind

#: The bits of payloads that are records of levels.
LEVEL_BITS = BATCHED | LIFTED


class Level:
    """One running transform.

    Attributes:
        depth: how many levels ran when it was made; the deepest of a call acts first.
        alive: whether the transform is still running.
        outer: the word that it was entered from.
    """

    #: What the transform is called, in errors, and the error of an escaped tensor.
    kind: str = "level"
    escape_error: type[PolyopError] = AutogradError

    __slots__ = ("__weakref__", "_below", "alive", "depth", "outer")

    def __init__(self) -> None:
        self.outer = word()
        self.depth = len(self.outer.levels)
        self.alive = True
        self._below: tuple[Word, Word] | None = None

    def inner_word(self) -> Word:
        """Give the word that the transformed function runs under."""
        return self.outer.but(levels=(*self.outer.levels, self), below=False)

    def watched_word(self, like: Word) -> Word:
        """Give the word inside, whose calls autograd sees, from a word like the one outside.

        What `Word.within` says holds in the new word too, so nested levels work it out once.
        """
        code, fields = within = like.within
        inner = Word(code)
        if fields:
            inner.__dict__.update(fields)
        inner.levels = (*like.levels, self)
        inner.within = within
        if not like.below:  # the word below this level is the one outside
            self._below = (inner, self.outer)
        return inner

    def below(self) -> Word:
        """Give the current word with this level, and deeper ones, off."""
        now, cached = word(), self._below
        if cached is not None and cached[0] is now:
            return cached[1]
        made = self.below_of(now)
        self._below = (now, made)
        return made

    def below_of(self, now: Word) -> Word:
        """Make the word for `below`; cold."""
        return now.but(levels=now.levels[: self.depth])

    def end(self) -> None:
        """Note that the transform is over, and let go of its words: they hold the level."""
        self.alive, self._below = False, None

    def run(self, op: OpOverload, args: Sequence[Any]) -> Any:
        """Run a call whose innermost level is this one; all arguments in schema order."""
        raise NotImplementedError

    def escaped(self, op: OpOverload | None = None) -> NoReturn:
        """Raise the error of a tensor that is used after its transform has ended."""
        raise self.escape_error(
            f"a tensor made inside {self.kind} is used after {self.kind} has ended",
            op=op._schema if op is not None else "",
            fix=f"return it from the function that {self.kind} transforms",
        )


@contextmanager
def enter_level(level: Level) -> Iterator[Level]:
    """Run a transformed function's body under its level."""
    outer = word()
    try:
        set_word(level.inner_word())
        yield level
    finally:
        set_word(outer)
        level.end()


def innermost(args: Sequence[Any]) -> Level | None:
    """Give the deepest level among the tensors of a call, or None."""
    found: Level | None = None
    for tensor in tensors_in(tuple(args)):
        if tensor.keys & LEVEL_BITS:
            level: Level = tensor.payload.level
            if found is None or level.depth > found.depth:
                found = level
    return found


#: Makers of generated handlers, by exactly the level bits of the call; None leaves it to `run`.
FAST: dict[int, Callable[[Way], Handler | None]] = {}


class LevelsLayer:
    """Hands a call with wrapped tensors to the innermost level among them."""

    def handler(self, way: Way) -> Handler | None:
        """Give the generated handler of the one kind of level, or the general one."""
        bits = way.code & LEVEL_BITS
        if not bits:
            return None
        cast = autocast_kernel(way)
        if cast is not None:  # before the derivative, which then is that of what is computed
            return cast
        own = own_kernels(way)
        if bits & LIFTED and _is_passed_over(way, autograd_key_for(max(backends_of(way.code)))):
            own[LIFTED] = lambda *args: call_anew(_living(way.op, args), way.op, args)
        if own:
            return _with_own(way.op, own)
        make = FAST.get(bits)
        made = make(way) if make is not None else None
        return made if made is not None else general(way.op)


def _is_passed_over(way: Way, key: DispatchKey) -> bool:
    """Tell whether nobody acts at a key: it was excluded, or the operator falls through (S93)."""
    return is_off(way.code, key) or way.op.table[key].reason is Reason.FALLTHROUGH


def general(op: OpOverload) -> Handler:
    """Make the handler that looks for the level at each call.

    It looks only where tensors can be, if they are in no list.
    """
    places = tensor_places(op)
    if places is None:
        return lambda *args: _living(op, args).run(op, args)

    def run(*args: Any) -> Any:
        level: Any = None
        for i in places:
            tensor = args[i]
            if tensor is not None and tensor.keys & LEVEL_BITS:
                found = tensor.payload.level
                if level is None or found.depth > level.depth:
                    level = found
        if not level.alive:
            level.escaped(op)
        return level.run(op, args)

    return run


def tensor_places(op: OpOverload) -> tuple[int, ...] | None:
    """Give the positions of tensors among the arguments; None if lists or trees have some."""
    kinds = [leaf_kind(a.type) for a in op._schema.arguments]
    places = tuple(i for i, kind in enumerate(kinds) if kind in {"tensor", "tensor?"})
    return places if all(k in {"tensor", "tensor?", "static"} for k in kinds) else None


def _with_own(op: OpOverload, own: Mapping[int, Handler]) -> Handler:
    """Make the handler of an operator that has kernels at the keys of levels."""

    def run(*args: Any) -> Any:
        level = _living(op, args)
        kernel = own.get(bit_of(level))
        return level.run(op, args) if kernel is None else kernel(*args)

    return run


def _living(op: OpOverload, args: Sequence[Any]) -> Level:
    level = innermost(args)
    assert level is not None
    if not level.alive:
        level.escaped(op)
    return level


class BackLayer:
    """Takes the innermost level off, for a call that did not begin with the levels (S100)."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler, if there are wrapped tensors in the call."""
        if not way.code & LEVEL_BITS:
            return None
        return lambda *args: call_anew(_living(way.op, args), way.op, args)
