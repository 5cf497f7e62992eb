"""Blocks as decorators of generators and coroutines: they hold in each step, and nowhere else."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import torch

import polyop
from polyop.dispatch.context import word
from polyop.dispatch.modes import DispatchMode, dispatch_mode_stack
from polyop.errors import ModeError

BLOCKS: list[Callable[[], Any]] = [
    polyop.no_grad,
    polyop.inference_mode,
    lambda: polyop.set_grad_enabled(False),
]


def steps(xp: Any, block: Any) -> list[Any]:
    """Give what a decorated generator sees, step by step, and what is seen between the steps."""
    seen: list[Any] = []

    @block  # type: ignore[untyped-decorator]
    def generator(first: int) -> Iterator[Any]:
        try:
            seen.append((yield first, xp.is_grad_enabled()))
            yield xp.is_grad_enabled()
        except ValueError:
            yield "thrown", xp.is_grad_enabled()
        finally:
            seen.append(xp.is_grad_enabled())
        return 7

    def outer() -> Iterator[Any]:
        seen.append((yield from generator(1)))

    for end in ("finish", "throw", "close", "delete", "raise"):
        running = outer()
        seen += [next(running), xp.is_grad_enabled()]
        if end == "finish":
            seen += [running.send("sent"), xp.is_grad_enabled(), *running]
        elif end == "throw":
            seen += [running.throw(ValueError), xp.is_grad_enabled(), *running]
        elif end == "close":
            running.close()
        elif end == "raise":
            with pytest.raises(KeyError):
                running.throw(KeyError)
        del running
        gc.collect()
        seen.append(xp.is_grad_enabled())
    return seen


@pytest.mark.parametrize("block", BLOCKS)
def test_a_decorated_generator(block: Callable[[], Any]) -> None:
    """S140: the mode holds in each step, however the generator goes on or ends, as in PyTorch."""
    assert steps(polyop, block()) == steps(torch, torch.no_grad())
    assert word() == 0


def test_what_a_decorated_function_is() -> None:
    """S140: a decorated generator or coroutine function still is one."""

    async def each() -> AsyncIterator[int]:
        yield 1

    block = polyop.no_grad()
    assert inspect.isgeneratorfunction(block(steps)) is False
    assert inspect.isgeneratorfunction(block(lambda: (yield)))
    assert inspect.iscoroutinefunction(block(asyncio.sleep))
    assert inspect.isasyncgenfunction(block(each))


def test_blocks_that_a_decorated_generator_holds() -> None:
    """S140: a block inside of it is open in its steps alone, and is there again in the next."""

    @polyop.no_grad()
    def generator() -> Iterator[bool]:
        with polyop.enable_grad():
            yield polyop.is_grad_enabled()
            yield polyop.is_grad_enabled()
        yield polyop.is_grad_enabled()

    first, second = generator(), generator()
    assert [next(first), next(second)] == [True, True]
    with polyop.no_grad():
        assert [next(first), polyop.is_grad_enabled()] == [True, False]
    assert [*second, *first] == [True, False, False]
    assert word() == 0


def test_a_decorated_coroutine() -> None:
    """S140, S98: tasks that take turns are each under their own mode, and nobody else is."""
    seen = []

    @polyop.no_grad()
    async def waits(name: str) -> str:
        for _ in range(2):
            seen.append(polyop.is_grad_enabled())
            await asyncio.sleep(0)
        return name

    async def main() -> list[str]:
        running = waits("a"), waits("b"), other()
        return await asyncio.gather(*running)

    async def other() -> str:
        one = waits("c")
        one.send(None)  # a step by hand, in this task
        seen.append(not polyop.is_grad_enabled())
        one.close()
        return "d"

    assert asyncio.run(main()) == ["a", "b", "d"]
    assert seen == [False] * 6


def test_a_decorated_asynchronous_generator() -> None:
    """S140: the mode holds in each step, and is off where the caller goes on."""

    @polyop.no_grad()
    async def generator() -> AsyncIterator[Any]:
        try:
            got = yield polyop.is_grad_enabled()
            await asyncio.sleep(0)
            yield got, polyop.is_grad_enabled()
        except ValueError:
            yield "thrown", polyop.is_grad_enabled()

    async def main() -> list[Any]:
        seen: list[Any] = [x async for x in generator()]
        for act in ("asend", "athrow"):
            running: Any = generator()
            seen += [await anext(running), polyop.is_grad_enabled()]
            seen.append(await getattr(running, act)(ValueError()))
            await running.aclose()
        return seen

    first, (none, off), *rest = asyncio.run(main())
    assert (first, none, off) == (False, None, False)
    assert rest[:2] == [False, True] and rest[2][1] is False
    assert rest[3:] == [False, True, ("thrown", False)]


class Sees(DispatchMode):
    """Counts calls."""

    calls = 0

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return op(*args, **(kwargs or {}))


def test_a_mode_that_is_left_out_of_order() -> None:
    """S1, S162: it is an error, after which all are where they were, and leave in order."""
    outer, inner = Sees(), Sees()
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(ModeError, match="not the innermost"):
        outer.__exit__(None, None, None)
    polyop.ones(2)
    assert (outer.calls, inner.calls) == (1, 1)
    inner.__exit__(None, None, None)
    polyop.ones(2)
    assert (outer.calls, inner.calls) == (2, 1)
    outer.__exit__(None, None, None)
    assert word() == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_generators_with_modes_that_are_dropped_in_the_order_of_their_making() -> None:
    """S162: nothing stays on the stack, though nobody sees the error."""

    def holds() -> Iterator[None]:
        with Sees():
            yield

    first, second = holds(), holds()
    next(first)
    next(second)
    del first
    gc.collect()
    del second
    gc.collect()
    assert dispatch_mode_stack() == ()
