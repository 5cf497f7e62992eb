"""Functions that run in steps: a block around a generator or coroutine is one around each step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import coroutine
from typing import Any

Fn = Callable[..., Any]


def in_steps(fn: Fn, begin: Callable[[], Fn]) -> Fn | None:
    """Wrap a function whose calls run in steps, so that each step is inside of a block.

    Args:
        fn: any function; if its calls do not run in steps, there is nothing to give.
        begin: gives, for one call of `fn`, what calls a function inside of the block.
    """
    wrap = next((wrap for is_sort, wrap in _SORTS if is_sort(fn)), None)
    return None if wrap is None else wrap(fn, begin)


def _generator(fn: Fn, begin: Callable[[], Fn]) -> Fn:
    @wraps(fn)
    def inside(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from _driven(fn(*args, **kwargs), begin()))

    return inside


def _coroutine(fn: Fn, begin: Callable[[], Fn]) -> Fn:
    @wraps(fn)
    async def inside(*args: Any, **kwargs: Any) -> Any:
        return await _driven(fn(*args, **kwargs).__await__(), begin())

    return inside


def _async_generator(fn: Fn, begin: Callable[[], Fn]) -> Fn:
    @wraps(fn)
    async def inside(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        steps, run = fn(*args, **kwargs), begin()
        act, value = steps.asend, None
        while True:
            try:
                given = await _driven(act(value).__await__(), run)
            except StopAsyncIteration:
                return
            try:
                value = yield given
                act = steps.asend
            except BaseException as error:
                act, value = steps.athrow, error

    return inside


_SORTS: tuple[tuple[Callable[[Any], bool], Callable[[Fn, Callable[[], Fn]], Fn]], ...] = (
    (isgeneratorfunction, _generator),
    (iscoroutinefunction, _coroutine),
    (isasyncgenfunction, _async_generator),
)


@coroutine
def _driven(steps: Any, run: Fn) -> Any:
    """Run a generator, or what a coroutine awaits, each step by `run`; give what it returns."""
    act, value = steps.send, None
    while True:
        try:
            given = run(act, value)
        except StopIteration as stop:
            return stop.value
        try:
            value = yield given
            act = steps.send
        except BaseException as error:
            act, value = steps.throw, error
