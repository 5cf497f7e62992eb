"""Threads that call through PyTorch and JAX while others define; and calls that leave nothing.

POLYOP_BRIDGE_CALLS=100000 repeats the calls so often; by default there are two thousand.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tests.bridges import hostile
from tests.bridges.hostile import add, made, product, sin

import polyop

pytestmark = pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
CALLS = int(os.environ.get("POLYOP_BRIDGE_CALLS", "2000"))
ROUNDS = 12


def run_all(works: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own; what one raises is raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(work) for work in works]:
            future.result()


def through_torch(op: Any, number: int) -> None:
    x = torch.linspace(0.1, 1.0, 5 + number)
    y = x.clone().requires_grad_()
    out = op(y)
    torch.testing.assert_close(out.detach(), torch.sin(x))
    (grad,) = torch.autograd.grad(out.sum(), y)
    torch.testing.assert_close(grad, torch.cos(x))
    torch.testing.assert_close(torch.vmap(op)(torch.stack([x, x]))[1], torch.sin(x))


def through_jax(op: Any, number: int) -> None:
    x = jnp.linspace(0.1, 1.0, 5 + number)
    np.testing.assert_allclose(op(x), np.sin(x), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(op)(x), np.sin(x), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda x: op(x).sum())(x), np.cos(x), rtol=1e-5)


def fresh_sine(name: str) -> Any:
    return made(
        name,
        hostile.sine,
        setup=hostile.keep,
        backward=lambda ctx, g: g * polyop.cos(ctx.saved_tensors[0]),
        vmap=lambda op: lambda info, dims, x: (op(x), dims[0]),
    )


def test_threads_call_while_others_define() -> None:
    """S98: four threads by PyTorch and four by JAX get right results while two define."""
    op, done = fresh_sine("shared"), Event()
    start = Barrier(10)

    def caller(through: Callable[[Any, int], None], number: int) -> None:
        start.wait()
        for _ in range(ROUNDS):
            through(op, number)

    def definer(name: str) -> None:
        start.wait()
        for i in range(200):
            through_torch(fresh_sine(f"{name}_{i % 7}"), i % 5)
            if done.is_set():
                return

    callers = [
        lambda n=n, t=t: caller(t, n) for n in range(4) for t in (through_torch, through_jax)
    ]
    with ThreadPoolExecutor(10) as pool:
        definers = [pool.submit(definer, name) for name in ("left", "right")]
        calls = [pool.submit(work) for work in callers]
        try:
            for future in calls:
                future.result()
        finally:
            done.set()
        for future in definers:
            future.result()


def test_the_first_call_of_all_threads_at_once() -> None:
    """S98: an operator that eight threads meet for the first time is defined once, and right."""
    for turn in range(4):
        op, start = fresh_sine(f"first_{turn}"), Barrier(8)

        def work(through: Any, number: int, op: Any = op, start: Any = start) -> None:
            start.wait()
            through(op, number)

        run_all(
            [lambda n=n: work((through_torch, through_jax)[n % 2], n) for n in range(8)]  # type: ignore[misc]
        )


def test_threads_write_their_own() -> None:
    """S174: writes of many threads, each to a tensor of its own, are all there, and seen."""

    def work() -> None:
        out = torch.zeros(4)
        for _ in range(50):
            add(torch.ones(4), out)
        assert out.tolist() == [50.0] * 4
        assert out._version >= 50

    run_all([work] * 8)


def test_jitted_programs_in_threads() -> None:
    """S66: one compiled program, run by eight threads, gives each its own result."""
    run = jax.jit(jax.value_and_grad(lambda x, k: product(x, k).sum()))

    def work(number: int) -> None:
        for _ in range(ROUNDS):
            value, grad = run(jnp.arange(4.0), jnp.full(4, float(number)))
            assert float(value) == 6.0 * number and grad.tolist() == [number] * 4

    run_all([lambda n=n: work(n) for n in range(8)])  # type: ignore[misc]


def torch_step() -> None:
    y = torch.ones(16, requires_grad=True)
    product(sin(y), torch.ones(16), 0.5).sum().backward()


JITTED = jax.jit(jax.grad(lambda x: product(sin(x), x, 0.5).sum()))
STEPS: dict[str, Callable[[], Any]] = {
    "torch": lambda: sin(torch.ones(16)),
    "torch gradient": torch_step,
    "torch write": lambda: add(torch.ones(16), torch.zeros(16)),
    "torch vmap": lambda: torch.vmap(sin)(torch.ones(2, 3)),
    "torch error": lambda: refused(lambda: product(torch.ones(3), "no")),
    "jax": lambda: sin(jnp.ones(16)),
    "jax jit": lambda: JITTED(jnp.ones(16)),
    "jax error": lambda: refused(lambda: product(jnp.ones(3), "no")),
}


def refused(call: Callable[[], Any]) -> None:
    with pytest.raises(polyop.errors.ArgumentError):
        call()


@pytest.mark.parametrize("name", STEPS)
def test_calls_leave_nothing(name: str) -> None:
    """S66: after thousands of calls there are no more objects, and no more memory, than before."""
    step = STEPS[name]
    for _ in range(64):
        step()
    gc.collect()
    objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(CALLS):
        step()
    gc.collect()
    assert len(gc.get_objects()) - objects < max(50, CALLS // 20)
    assert sys.getallocatedblocks() - blocks < max(500, CALLS // 4)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 << 10


def test_defining_again_leaves_little() -> None:
    """S44: an operator defined again and again, and called in both, is one operator at the end."""
    tracemalloc.start()
    try:
        sizes = []
        for turn in range(12):
            op = fresh_sine("again")
            op(torch.ones(3))
            op(jnp.ones(3))
            del op
            gc.collect()
            if turn in {3, 11}:
                sizes.append(tracemalloc.get_traced_memory()[0])
        assert sizes[1] - sizes[0] < 8 * 40_000
    finally:
        tracemalloc.stop()
