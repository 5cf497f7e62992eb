"""Threads: definitions, calls, overrides and removals at once, and contexts of their own."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.dispatch.context import word
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.dumps import dispatch_check_invariants
from polyop.dispatch.guards import excluded_keys, include_keys, included_keys
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import Library
from polyop.dispatch.modes import DispatchMode, dispatch_mode_stack
from polyop.dispatch.namespaces import ops
from polyop.dispatch.rules import register_kernel
from polyop.errors import MissingKernelError, OperatorGoneError, OperatorNotFoundError
from polyop.tensor.tensor import Tensor, of_array

THREADS = 8
ONE = np.ones(1)


@pytest.fixture(autouse=True)
def fast_switches() -> Iterator[None]:
    """Threads change places fifty times as often as they do by default."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def together(*works: Callable[[], None]) -> None:
    """Run functions at once; the first error of any is the test's."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        barrier.wait()
        work()

    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(run, work) for work in works]:
            done.result()


def adds(n: float) -> Callable[[Any], Any]:
    def kernel(x: Tensor) -> Tensor:
        return of_array(x.numpy() + n)

    return kernel


def test_first_calls_from_many_threads() -> None:
    """S98: an operator whose first calls come from many threads at once answers each rightly."""
    for i in range(30):
        op = custom_op(f"threads::first{i}", adds(i), mutates_args=())

        def call(op: Any = op, i: int = i) -> None:
            assert op(of_array(ONE)).item() == 1 + i

        together(*[call] * THREADS)


def test_each_thread_its_own_operators() -> None:
    """S41: threads that define, call, override and destroy their own never meet."""

    def work(number: int) -> Callable[[], None]:
        def run() -> None:
            for i in range(20):
                lib = Library(f"threads_own{number}", "DEF")
                lib.define("f(Tensor x) -> Tensor")
                lib.impl("f", adds(i), "CPU")
                handle = getattr(ops, f"threads_own{number}").f.default
                assert handle(of_array(ONE)).item() == 1 + i
                over = Library(f"threads_own{number}", "IMPL", "CPU")
                over.impl("f", adds(-i))
                assert handle(of_array(ONE)).item() == 1 - i
                over.destroy()
                assert handle(of_array(ONE)).item() == 1 + i
                lib.destroy()
                with pytest.raises(OperatorGoneError):
                    handle(of_array(ONE))

        return run

    together(*[work(n) for n in range(THREADS)])


def test_calls_during_overrides() -> None:
    """S107: a call beside overrides is answered by the old kernel or a new one, wholly."""
    op = custom_op("threads::shared", adds(1), mutates_args=())
    stop = threading.Event()
    allowed = {2.0, 11.0, 101.0}

    def call() -> None:
        x = of_array(ONE)
        while not stop.is_set():
            assert op(x).item() in allowed
            assert op(ONE)[0] in allowed

    def override() -> None:
        try:
            for _ in range(60):
                lib = Library("threads", "IMPL", "CPU")
                lib.impl("shared", adds(10))
                assert op(of_array(ONE)).item() in allowed
                lib.destroy()
                register_kernel(op, "cpu", adds(100))
        finally:
            stop.set()

    together(*[call] * (THREADS - 2), override, override)
    dispatch_check_invariants(op)


def test_calls_during_removal() -> None:
    """S41: a call beside a removal is answered, or says that the operator is gone or not there."""
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                assert ops.threads_gone.f(of_array(ONE)).item() == 2
            except (OperatorGoneError, OperatorNotFoundError, MissingKernelError):
                pass

    def define() -> None:
        try:
            for _ in range(60):
                lib = Library("threads_gone", "DEF")
                lib.define("f(Tensor x) -> Tensor")
                lib.impl("f", adds(1), "CPU")
                ops.threads_gone.f(of_array(ONE))
                lib.destroy()
        finally:
            stop.set()

    together(*[call] * (THREADS - 1), define)
    assert "f" not in list(ops.threads_gone)


def test_redefinition_from_many_threads() -> None:
    """S44: the same definition from many threads is one operator."""

    def work() -> None:
        for _ in range(50):
            op = custom_op("threads::same", adds(1), mutates_args=())
            assert op(of_array(ONE)).item() == 2

    together(*[work] * THREADS)
    assert ops.threads.same(of_array(ONE)).item() == 2


def test_a_thread_starts_with_the_defaults() -> None:
    """S98: a new thread starts with the default context, whatever its creator entered."""
    seen: list[Any] = []

    class Nothing(DispatchMode):
        pass

    def look() -> None:
        seen.append((int(word()), dispatch_mode_stack(), included_keys(), excluded_keys()))

    look()
    with include_keys(["Negative"]), Nothing():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen[0] == seen[1]


def test_a_mode_in_two_threads() -> None:
    """S98: one mode, entered by two threads in turn, is left by each in its own time."""

    class Shared(DispatchMode):
        pass

    mode, inside, leave = Shared(), threading.Event(), threading.Event()

    def other() -> None:
        with mode:
            inside.set()
            leave.wait()
            assert dispatch_mode_stack() == (mode,)

    thread = threading.Thread(target=other)
    with mode:
        thread.start()
        inside.wait()
    assert dispatch_mode_stack() == ()
    leave.set()
    thread.join()


def test_a_task_copies_its_creators_context() -> None:
    """S98: an asyncio task starts with its creator's context, and changes only its own."""
    negative = DispatchKey.Negative

    async def child() -> tuple[bool, bool]:
        before = included_keys().has(negative)
        with include_keys(["Conjugate"]):
            await asyncio.sleep(0)
            return before, included_keys().has(DispatchKey.Conjugate)

    async def parent() -> tuple[Any, Any, bool]:
        with include_keys([negative]):
            tasks = [asyncio.create_task(child()) for _ in range(2)]
            await asyncio.sleep(0)
            mixed = included_keys().has(DispatchKey.Conjugate)
            first, second = await asyncio.gather(*tasks)
        return first, second, mixed

    assert asyncio.run(parent()) == ((True, True), (True, True), False)
