"""Loops on several threads give what one thread gives: bits, results, warnings (SPEC S211)."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor

LIBRARY = importlib.import_module("polyop.compile.fused.library")
THREADS = importlib.import_module("polyop.compile.fused.threads")
pytestmark = pytest.mark.skipif(LIBRARY.compiler() is None, reason="there is no C compiler")

SIZE = THREADS.LARGE + 77


@pytest.fixture
def parts(monkeypatch: Any) -> list[slice]:
    """Three threads; and which parts of the arrays they took."""
    monkeypatch.setenv("POLYOP_NUM_THREADS", "3")
    monkeypatch.setattr(THREADS, "PART", SIZE // 3)
    found: list[slice] = []
    cut = THREADS._places

    def places(size: int, threads: int) -> list[slice]:
        made: list[slice] = cut(size, threads)
        found.extend(made)
        return made

    monkeypatch.setattr(THREADS, "_places", places)
    return found


def rand(*shape: int, seed: int = 0) -> Tensor:
    return polyop.from_numpy(np.random.default_rng(seed).normal(size=shape).astype("f4"))


def chain(x: Tensor, y: Tensor) -> Tensor:
    return polyop.exp(-x * x) / (polyop.tanh(y) + 2.0) + x * y


def looped(fn: Any) -> Any:
    return polyop.compile(fn, backend="c", fullgraph=True)


def test_three_threads_give_the_bits_of_one(parts: list[slice], monkeypatch: Any) -> None:
    """S211: the parts cover each element once, and no bit depends on how many there are."""
    x, y = rand(SIZE), rand(SIZE, seed=1)
    run = looped(chain)
    found = run(x, y).numpy()
    assert len(parts) == 3
    assert sorted(i for p in parts for i in (p.start, p.stop)) == sorted(
        [0, *[p.stop for p in parts[:-1]] * 2, SIZE]
    )
    monkeypatch.setenv("POLYOP_NUM_THREADS", "1")
    assert np.array_equal(found.view("u4"), run(x, y).numpy().view("u4"))
    assert len(parts) == 3


def test_several_results_and_shapes_are_those_of_the_calls(parts: list[slice]) -> None:
    """S211: a loop of two results keeps both, in the shape of the arrays."""
    x, y = rand(9, SIZE // 8), rand(9, SIZE // 8, seed=1)
    first, second = looped(lambda x, y: ((x * y - x), (x * y + y)))(x, y)
    assert parts
    assert np.array_equal(first.numpy(), (x * y - x).numpy())
    assert np.array_equal(second.numpy(), (x * y + y).numpy())


def test_arrays_that_are_not_laid_out_alike_stay_with_one_thread(parts: list[slice]) -> None:
    """S211: transposed, repeated and sliced arrays give the same numbers."""
    x = rand(1024, 1024)
    run = looped(lambda x, y: x * y + x)
    for y in (rand(1024, 1024, seed=1).T, rand(1024), rand(1024, 2048)[:, ::2]):
        assert np.array_equal(run(x, y).numpy(), (x * y + x).numpy())
    assert not parts


def test_what_another_thread_divides_by_zero_is_reported(parts: list[slice]) -> None:
    """S211: a floating-point error of any part is the error of the call, once."""
    y = np.ones(SIZE, "f4")
    y[-1] = 0
    run = looped(lambda x, y: x / y + 1.0)
    tensors = polyop.from_numpy(np.ones(SIZE, "f4")), polyop.from_numpy(y)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        run(*tensors)
    with pytest.warns(RuntimeWarning, match="divide by zero") as seen:
        assert np.isinf(run(*tensors).numpy()[-1])
    assert len(seen) == 1
    with np.errstate(divide="ignore"):
        assert np.isinf(run(*tensors).numpy()[-1])
    assert len(parts) == 9


def test_many_callers_share_the_threads(parts: list[slice]) -> None:
    """S211: eight threads that call at once wait for nothing but their own parts."""
    run = looped(lambda x, y: x * y + x)
    given = [(rand(SIZE, seed=i), rand(SIZE, seed=i + 50)) for i in range(8)]
    wanted = [(x * y + x).numpy() for x, y in given]
    with ThreadPoolExecutor(8) as pool:
        found = [t.numpy() for t in pool.map(lambda pair: run(*pair), given * 3)]
    assert all(np.array_equal(f, w) for f, w in zip(found, wanted * 3, strict=True))
    assert len(parts) == 3 * len(found)


AFTER = """
import atexit, os, sys
import numpy as np, polyop
x = polyop.from_numpy(np.ones({size}, "f4"))
run = polyop.compile(lambda x: x * x + x, backend="c", fullgraph=True)
total = lambda: print(run(x).numpy().sum(dtype="f8"), flush=True)
atexit.register(total)
total()
child = os.fork()
if not child:
    total()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_and_the_end_of_one_have_their_loops() -> None:
    """S211: threads of a parent are gone in its child, and at the interpreter's end; loops run."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AFTER.format(size=SIZE)],
        env={**os.environ, "POLYOP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == [str(2.0 * SIZE)] * 3, done.stderr


@pytest.mark.parametrize(
    ("own", "omp", "wanted"), [("5", "2", 5), ("", "2", 2), ("0", "x", None), ("many", "4,2", None)]
)
def test_the_environment_says_how_many_threads(
    own: str, omp: str, wanted: int | None, monkeypatch: Any
) -> None:
    """S211: what is no number counts for nothing; then each core that the process has is taken."""
    monkeypatch.setenv("POLYOP_NUM_THREADS", own)
    monkeypatch.setenv("OMP_NUM_THREADS", omp)
    assert THREADS.count() == (wanted or len(os.sched_getaffinity(0)))
