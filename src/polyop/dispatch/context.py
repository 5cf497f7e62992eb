"""The context is one word: what is active for the calls of this thread or task.

A `Word` is an integer that entries OR into the key set of a call, so nothing
branches on "is something active" and the memo learns every combination. What
changes rarely hangs on it as attributes. There is one `ContextVar`; threads
start with `PLAIN`, asyncio tasks with a copy of their creator's word (S98).

Words are immutable. `word.but(...)` makes another; the words that layers step
down to (`in_kernel`, `without_grad`) are made once per word and kept on it,
because entering a word costs 0.2 us and making one ten times that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import cached_property, wraps
from types import TracebackType
from typing import Any, TypeVar

from polyop.dispatch.bits import (
    ANOMALY,
    BELOW,
    EXCLUDE_SHIFT,
    FAKE_MODE,
    FUNCTIONALIZE,
    IN_RULE,
    INCLUDE_SHIFT,
    INFERENCE,
    LEVELS,
    MODES,
    NO_GRAD,
    PACKING,
    PRE_DISPATCH,
    PROBING,
    TRACE,
)
from polyop.dispatch.generators import in_steps
from polyop.dispatch.keys import AUTOCAST_KEYS, AUTOGRAD_KEYS, DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.errors import ModeError

F = TypeVar("F", bound=Callable[..., Any])

#: The sets of a fresh context (S94).
DEFAULT_INCLUDE = DispatchKeySet([DispatchKey.BackendSelect, DispatchKey.ADInplaceOrView])
DEFAULT_EXCLUDE = DispatchKeySet(AUTOCAST_KEYS)
AUTOGRAD = DispatchKeySet(AUTOGRAD_KEYS)


class Word(int):
    """What is active, as an integer, with the things themselves as attributes.

    Attributes:
        include: keys added to every call.
        exclude: keys taken out of every call.
        grad: grad mode.
        inference: inference mode.
        modes: the user modes, outermost first.
        infra: modes that were entered in the slots of `infra_modes.ModeKey`, or nothing.
        pre: the pre-dispatch stack by slot (`pre_dispatch.py`), or nothing.
        below: whether the handler of a mode or a subclass runs, which nobody above Python meets.
        tracer: what records the calls, or None.
        fake: the fake mode that calls without tensors use, or None.
        levels: the running transforms, outermost first.
        functional: the functionalization that is running, or None.
        rule: the context of the running fake rule, or None.
        autocast: the dtype of each device type that is being autocast.
        anomaly: what anomaly mode does: `"place"`, `"nan"` beside it, or nothing.
        packing: the functions that keep what calls save for backward, or None.
        probing: what meets looks at data while nothing records, as a gradient runs at a probe or
            a trace is in a fake mode of others, or None.
        taking: what meets them while an author's `setup_context` runs, or None.
        aliasing: what becomes of an undeclared alias: `"refuse"`, `"copy"`, `"ignore"`.
    """

    include: DispatchKeySet = DEFAULT_INCLUDE
    exclude: DispatchKeySet = DEFAULT_EXCLUDE
    grad: bool = True
    inference: bool = False
    modes: tuple[Any, ...] = ()
    infra: tuple[Any, ...] = ()
    pre: tuple[Any, ...] = ()
    below: bool = False
    tracer: Any = None
    fake: Any = None
    levels: tuple[Any, ...] = ()
    functional: Any = None
    rule: Any = None
    autocast: tuple[tuple[str, Any], ...] = ()
    anomaly: str = ""
    packing: Any = None
    probing: Any = None
    taking: Any = None
    aliasing: str = "refuse"

    def but(self, **changes: Any) -> Word:
        """Give this word with some attributes changed."""
        fields = self._fields | changes
        word = Word(_code(fields))
        word.__dict__.update(fields)
        word.__dict__["_fields"] = fields
        return word

    @cached_property
    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}

    @cached_property
    def without_grad(self) -> Word:
        """The same with grad mode off."""
        return self.but(grad=False)

    @cached_property
    def with_grad(self) -> Word:
        """The same with grad mode on."""
        return self.but(grad=True)

    def with_aliasing(self, policy: str) -> Word:
        """Give the same with another policy for undeclared aliases."""
        made: Word | None = self.__dict__.get(policy)
        if made is None:
            made = self.__dict__[policy] = self.but(aliasing=policy)
        return made

    @cached_property
    def in_kernel(self) -> Word:
        """What a kernel runs under: every layer has acted already.

        Tensors still carry their bits there, so autograd is excluded; nothing
        watches, so what a kernel calls is done at once.
        """
        return self.but(
            grad=False, modes=(), infra=(), pre=(), tracer=None, fake=None, functional=None,
            rule=None, probing=None, taking=None, exclude=self.exclude | AUTOGRAD,
        )  # fmt: skip

    @cached_property
    def within(self) -> tuple[int, dict[str, Any]]:
        """The code and the attributes of words inside one more level, whose calls autograd sees.

        Each level makes one of its own of them, and puts itself beside the levels.
        """
        like = self.but(levels=(None,), below=False, exclude=self.exclude - AUTOGRAD)
        fields = {name: value for name, value in like._fields.items() if name != "levels"}
        return int(like), {n: v for n, v in fields.items() if v != getattr(Word, n)}

    @cached_property
    def recorder(self) -> Any:
        """What meets looks: a trace, a tracing mode before dispatch, a probe, or None."""
        before = self.pre[0] if self.pre else None
        return self.tracer or getattr(before, "tracer", None) or self.probing

    @cached_property
    def watcher(self) -> Any:
        """What meets looks: the recorder, or what runs a `setup_context`, or None."""
        return self.recorder or self.taking

    @cached_property
    def beneath(self) -> Word:
        """What the handler of a subclass runs under: nobody above Python acts."""
        return self.but(below=True)

    @cached_property
    def chain(self) -> tuple[tuple[Any, Word], ...]:
        """The modes that a call meets, innermost first, each with the word that it runs under."""
        user = [
            (mode, self.but(modes=self.modes[:i], below=True)) for i, mode in enumerate(self.modes)
        ]
        slots = [
            (mode, self.but(modes=(), infra=_behind(self.infra, i), below=True))
            for i, mode in enumerate(self.infra)
            if mode is not None
        ]
        return (*reversed(user), *slots)

    @cached_property
    def top(self) -> tuple[Any, Word]:
        """The first of the modes that a call meets."""
        return self.chain[0]


def _behind(slots: tuple[Any, ...], i: int) -> tuple[Any, ...]:
    """Give the slots behind one; nothing if they are empty, as in a word without any."""
    rest = slots[i + 1 :]
    return (None,) * (i + 1) + rest if any(mode is not None for mode in rest) else ()


FIELDS = tuple(Word.__annotations__)

_FLAGS = (
    ("inference", INFERENCE), ("modes", MODES), ("tracer", TRACE), ("fake", FAKE_MODE),
    ("levels", LEVELS), ("functional", FUNCTIONALIZE), ("rule", IN_RULE), ("infra", MODES),
    ("pre", PRE_DISPATCH), ("below", BELOW), ("anomaly", ANOMALY),
    ("packing", PACKING), ("probing", PROBING), ("taking", PROBING),
)  # fmt: skip


def _code(fields: dict[str, Any]) -> int:
    code = 0 if fields["grad"] else NO_GRAD
    for name, bit in _FLAGS:
        if fields[name]:
            code |= bit
    include: int = fields["include"].bits ^ DEFAULT_INCLUDE.bits
    exclude: int = fields["exclude"].bits ^ DEFAULT_EXCLUDE.bits
    return code | include << INCLUDE_SHIFT | exclude << EXCLUDE_SHIFT


PLAIN = Word(0)
_word: ContextVar[Word] = ContextVar("word", default=PLAIN)
#: Read the word; the one call of every entry.
word = _word.get
#: Enter a word, as the first thing in a `try`; enter the one before first in its `finally`. An
#: interrupt (Ctrl-C) may come as soon as either is done.
set_word: Callable[[Word], Token[Word]] = _word.set
#: Go back by the token, 40 ns faster: the first thing behind a `try` that restores if it raises.
reset_word: Callable[[Token[Word]], None] = _word.reset


def run_under(new: Word, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `fn` under a word."""
    outer = word()
    try:
        set_word(new)
        return fn(*args, **kwargs)
    finally:
        set_word(outer)


#: What each open block of this thread or task will put back, innermost last.
_open: ContextVar[tuple[Any, ...]] = ContextVar("open", default=())


def open_block(block: Any, make: Callable[[], Word]) -> None:
    """Enter the word that `make` gives for the current one, until the block is closed."""
    blocks, outer, new = _open.get(), _word.get(), make()
    try:
        _open.set((*blocks, (block, outer, make)))
        _word.set(new)
    except BaseException:  # interrupted: the block will not be closed
        _put_back(blocks, outer)
        raise


def _put_back(blocks: tuple[Any, ...], outer: Word) -> None:
    try:
        _word.set(outer)
    finally:
        _open.set(blocks)


def close_block(block: Any) -> None:
    """Put back what was there before a block was opened.

    Raises:
        ModeError: it was opened in another thread or task.
    """
    blocks = _open.get()
    if blocks and blocks[-1][0] is block:
        try:  # in this frame: before the first line of another it may be interrupted too
            _word.set(blocks[-1][1])
        finally:
            _open.set(blocks[:-1])
        return
    at = [i for i, (other, _, _) in enumerate(blocks) if other is block]
    if not at:
        raise ModeError(
            f"{type(block).__name__} is left where it was not entered",
            fix="leave a block in the thread and task that entered it: a generator that holds one "
            "must be finished where it was begun",
        )
    # A generator that holds the block ends inside of later ones: these are entered anew, without.
    _put_back(blocks[: at[-1]], blocks[at[-1]][1])
    for other, _, make in blocks[at[-1] + 1 :]:
        open_block(other, make)


def blocks_inside(block: Any) -> list[Any]:
    """List the blocks of this thread or task that were opened after one, outermost first."""
    blocks = [other for other, _, _ in _open.get()]
    last = max((i for i, other in enumerate(blocks) if other is block), default=len(blocks))
    return blocks[last + 1 :]


class _Steps:
    """Calls the steps of a generator under a word; blocks that it holds are open in them alone."""

    __slots__ = ("_held", "_make")

    def __init__(self, make: Callable[[], Word]) -> None:
        self._make = make
        self._held: list[tuple[Any, Callable[[], Word]]] = []

    def __call__(self, step: Callable[..., Any], *args: Any) -> Any:
        blocks, outer = _open.get(), _word.get()
        try:
            open_block(self, self._make)
            for block, make in self._held:
                open_block(block, make)
            try:
                return step(*args)
            finally:
                self._close()
        except BaseException:  # also an interrupt while blocks are opened or closed
            _put_back(blocks, outer)
            raise

    def _close(self) -> None:
        blocks = _open.get()
        inside = blocks[len(blocks) - len(blocks_inside(self)) :]
        self._held = [(block, make) for block, _, make in inside]
        for block, _, _ in reversed(inside):
            close_block(block)
        close_block(self)


def note_failure(error: Exception) -> None:
    """Tell the trace that records of an error that its function alone would not raise."""
    recorder = _word.get().recorder
    if recorder is not None:
        recorder.note_failure(error)


class entered:
    """A context manager and decorator that enters a word made from the current one.

    Subclasses say which, in `word`. What a block puts back is kept in the
    context, not on the object: one object may be entered again inside itself,
    and by several threads and tasks.
    """

    __slots__ = ()

    def word(self) -> Word:
        """Give the word to enter."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        open_block(self, self.word)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        close_block(self)

    def __call__(self, fn: F) -> F:
        """Run all of `fn` under the word; of a generator or coroutine, each of its steps."""
        steps = in_steps(fn, lambda: _Steps(self.word))
        if steps is not None:
            return steps  # type: ignore[return-value]

        @wraps(fn)
        def inside(*args: Any, **kwargs: Any) -> Any:
            return run_under(self.word(), fn, *args, **kwargs)

        return inside  # type: ignore[return-value]


class entered_at_once(entered):
    """Enters its word when it is made; as a block or on a function, for that alone."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        # Acts at once, so that a plain call does; a block puts back what was before it.
        self._before: Word | None = word()
        set_word(self.word())

    def __enter__(self) -> Any:
        self._put_back()
        return super().__enter__()

    def __call__(self, fn: F) -> F:
        """Run all of `fn` under the word."""
        self._put_back()
        return super().__call__(fn)

    def _put_back(self) -> None:
        if self._before is not None:
            set_word(self._before)
            self._before = None


class under(entered):
    """Enter a given word."""

    __slots__ = ("_new",)

    def __init__(self, new: Word) -> None:
        self._new = new

    def word(self) -> Word:
        """Give that word."""
        return self._new
