"""Streams of random numbers. Every generator has a lock, so threads may share one.

The default one, which `manual_seed` starts anew, is the process's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np

from polyop.dispatch.context import note_failure, word
from polyop.forks import lock_maker
from polyop.schema.values import register_generator
from polyop.source import caller

Fn = Callable[..., Any]
Array = Any
_new_lock = lock_maker()


class Generator:
    """A stream of random numbers.

    Args:
        seed: where it starts; without it, somewhere unpredictable.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._lock = _new_lock()
        self._seed = 0
        # `np.random` takes long to import: without a seed, the stream waits for its first use.
        self._stream: np.random.Generator | None = None
        self._begin: Callable[[], Any] = _anywhere
        if seed is not None:
            _refuse_traced("Generator", "makes")
            self._start(seed)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = self._state()
            return {**vars(self), "_stream": state, "_lock": None, "_begin": None}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept, _lock=_new_lock(), _begin=_anywhere)
        self._start(self._seed)
        self._stand(kept["_stream"])

    def manual_seed(self, seed: Any) -> Generator:
        """Start anew from a seed."""
        _refuse_traced("manual_seed")
        with self._lock:
            self._start(seed)
        return self

    def _start(self, seed: Any) -> np.random.Generator:
        self._seed = int(seed)
        self._stream = np.random.Generator(np.random.PCG64(self._seed))
        return self._stream

    def _open(self) -> np.random.Generator:
        """Give the stream; the lock is held."""
        return self._stream or self._start(self._begin())

    def initial_seed(self) -> int:
        """Give the seed that it started from."""
        _refuse_traced("initial_seed")
        with self._lock:
            self._open()
            return self._seed

    def get_state(self) -> dict[str, Any]:
        """Give where it stands, for `set_state`."""
        _refuse_traced("get_state")
        return self._state()

    def _state(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._open().bit_generator.state)

    def set_state(self, state: dict[str, Any]) -> Generator:
        """Stand where another stood."""
        _refuse_traced("set_state")
        self._stand(state)
        return self

    def _stand(self, state: dict[str, Any]) -> None:
        with self._lock:
            self._open().bit_generator.state = state

    def draw(self, method: str, *args: Any, **kwargs: Any) -> Array:
        """Call a method of NumPy's generator."""
        if _DRAWN.get() is not None:
            _note(self)
        with self._lock:
            return np.asarray(getattr(self._open(), method)(*args, **kwargs))


def _refuse_traced(method: str, act: str = "") -> None:
    """Refuse what a program that draws would not do again: a trace records draws alone.

    Raises:
        CaptureError: a trace records.
    """
    recorder = word().recorder
    if getattr(recorder, "runs_once", True):
        return
    error: Exception = recorder.stray(
        f"the function {act or f'calls {method}() of'} a generator of random numbers, which no "
        "program repeats",
        source=caller(),
        fix=f"call {method}() outside of the traced function",
    )
    note_failure(error)
    raise error


def _anywhere() -> Any:
    return np.random.SeedSequence().entropy


#: By identity, the generators that drew since `drawing` began, and where each stood before.
Drawn = dict[int, tuple[Any, Any]]
_DRAWN: ContextVar[Drawn | None] = ContextVar("drawn", default=None)


def drawing(fn: Callable[..., Any], *args: Any) -> tuple[Any, Drawn]:
    """Call a function, and give the generators that drew, each with its state of before."""
    outer = _DRAWN.get()
    found: Drawn = {}
    token = _DRAWN.set(found)
    try:
        out = fn(*args)
    finally:
        _DRAWN.reset(token)
        if outer is not None:
            outer.update({key: found[key] for key in found.keys() - outer.keys()})
    return out, found


def _note(generator: Any) -> None:
    drawn = _DRAWN.get()
    if drawn is not None and id(generator) not in drawn:
        drawn[id(generator)] = (generator, state_of(generator))


def state_of(generator: Any) -> Any:
    """Give where a generator, ours or NumPy's, stands."""
    ours = isinstance(generator, Generator)
    return generator._state() if ours else dict(generator.bit_generator.state)


def stand(generator: Any, state: Any) -> None:
    """Let a generator, ours or NumPy's, stand somewhere."""
    if isinstance(generator, Generator):
        generator._stand(state)
    else:
        generator.bit_generator.state = state


register_generator(Generator)
DEFAULT = Generator()
#: Stands for the default generator while a kernel runs whose numbers follow another library's.
_STANDS_IN: ContextVar[Generator | None] = ContextVar("stands_in", default=None)


def manual_seed(seed: int) -> Generator:
    """Start the default generator anew from a seed."""
    return default_generator().manual_seed(seed)


def default_generator() -> Generator:
    """Give the process's default generator; in a kernel that follows another library's, that."""
    return _STANDS_IN.get() or DEFAULT


def following(begin: Callable[[], int], fn: Fn, *args: Any, **kwargs: Any) -> Any:
    """Call a function with a default generator of its own.

    Args:
        begin: gives the seed, if the function draws.
        fn: the function.
        args: its arguments.
        kwargs: those by name.
    """
    generator = Generator()
    generator._begin = begin
    token = _STANDS_IN.set(generator)
    try:
        return fn(*args, **kwargs)
    finally:
        _STANDS_IN.reset(token)


def draw(generator: Any, method: str, *args: Any, **kwargs: Any) -> Array:
    """Draw from a generator: ours, NumPy's, or the default one."""
    # `np.random` is not asked for here: who imports it holds the lock, for which forks wait.
    if generator is None or isinstance(generator, Generator):
        return (generator or _STANDS_IN.get() or DEFAULT).draw(method, *args, **kwargs)
    if _DRAWN.get() is not None:
        _note(generator)
    return np.asarray(getattr(generator, method)(*args, **kwargs))
