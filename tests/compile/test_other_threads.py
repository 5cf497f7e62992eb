"""Threads that a captured function begins, which its trace does not see (SPEC S98, S211, S212)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Thread
from typing import Any

import pytest

import polyop
from polyop import Tensor, errors
from polyop.graph import make_fx


def in_a_thread(call: Callable[[], Any]) -> None:
    thread = Thread(target=call)
    thread.start()
    thread.join()


def write(x: Tensor) -> Tensor:
    y = x.clone()
    in_a_thread(lambda: y.mul_(3))
    return y + 1


def write_an_input(x: Tensor) -> Tensor:
    in_a_thread(lambda: x.mul_(3))
    return x + 1


def read(x: Tensor) -> Tensor:
    found: list[Tensor] = []
    in_a_thread(lambda: found.append(x * 2))
    return found[0] + x


def beside_a_constant(x: Tensor) -> Tensor:
    found: list[Tensor] = []
    one = polyop.ones(3)
    in_a_thread(lambda: found.append(polyop.concat([one, x]) + 0 * one.sum()))
    return found[0] * 2


def look(x: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        return x * pool.submit(lambda: x.sum().item()).result()


def look_at_what_was_made(x: Tensor) -> Tensor:
    y = x.sum()
    with ThreadPoolExecutor(1) as pool:
        return x * pool.submit(y.item).result()


FUNCTIONS = (write, write_an_input, read, beside_a_constant, look, look_at_what_was_made)
functions = pytest.mark.parametrize("fn", FUNCTIONS)
Fn = Callable[[Tensor], Tensor]


@functions
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiled_function_is_the_eager_one(fn: Fn, dynamic: bool) -> None:
    """S211: results and writes, in further calls too."""
    compiled = polyop.compile(fn, dynamic=dynamic)
    for _ in range(2):
        x, y = polyop.ones(3), polyop.ones(3)
        assert compiled(x).tolist() == fn(y).tolist()
        assert x.tolist() == y.tolist()


@functions
def test_a_function_in_parts_is_the_eager_one(fn: Fn) -> None:
    """S212: after a look, threads meet what was recorded since."""

    def cut(x: Tensor) -> Tensor:
        return fn(x * x.sum().item())

    compiled = polyop.compile(cut)
    for _ in range(2):
        assert compiled(polyop.ones(3)).tolist() == cut(polyop.ones(3)).tolist()


def test_a_view_in_parts() -> None:
    """S212: a thread that writes a view writes its base."""

    def fn(x: Tensor) -> Tensor:
        y = x * x.sum().item()
        view = y[1:]
        in_a_thread(lambda: view.mul_(3))
        return y + 1

    assert polyop.compile(fn)(polyop.ones(3)).tolist() == fn(polyop.ones(3)).tolist()


@functions
def test_there_is_no_program(fn: Fn) -> None:
    """S209, S212, S213: what a trace does not see is refused."""
    x = polyop.ones(3)
    for trace in (
        lambda: polyop.compile(fn, fullgraph=True)(x),
        lambda: polyop.export.export(fn, (x,)),
        lambda: make_fx(fn, "fake")(x),
        lambda: make_fx(fn, "symbolic")(x),
        lambda: make_fx(fn, "symbolic", pre_dispatch=True)(x),
    ):
        with pytest.raises((errors.CaptureError, errors.DataDependentOutputError)):
            trace()


def test_a_thread_in_the_context_is_seen() -> None:
    """S98: a thread that runs in a copy of the context is part of the trace."""

    def fn(x: Tensor) -> Tensor:
        y = x.clone()
        context = copy_context()
        in_a_thread(lambda: context.run(y.mul_, 3))
        return y + 1

    x = polyop.ones(3)
    assert polyop.compile(fn, fullgraph=True)(x).tolist() == fn(x).tolist() == [4.0] * 3
    for mode in ("real", "fake", "symbolic"):
        assert make_fx(fn, mode)(x)(x).tolist() == [4.0] * 3
