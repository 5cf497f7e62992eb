"""Measure compiled pointwise chains: ours as C loops, XLA's, Inductor's, and NumPy's calls.

    python bench/fused.py           all, on one core, printed and written to bench/fused.md
    python bench/fused.py --cores   all, on all cores, printed and written to bench/fused_cores.md
    python bench/fused.py 1e+06     one size, printed

All have the same cores. They take turns, round by round; a figure is the median of
its rounds, and below it stands the fastest. Caches on disk begin empty.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import torch

import polyop

CORES = len(os.sched_getaffinity(0))
torch.set_num_threads(CORES)
SIZES = {1000: (60, 2000), 1_000_000: (40, 5), 4_000_000: (20, 2), 10_000_000: (15, 1)}


def cheap(m, x, y):
    return ((m.abs((x * y + 1.0) - y) * x + 0.5) * 2.0 - y) * 0.25 + x


def heavy(m, x, y):
    return m.exp(-x * x) / (m.tanh(y) + 2.0) + x * y


def calls(chain: Callable, a: np.ndarray, b: np.ndarray) -> dict[str, tuple[Callable, float]]:
    """Give, per system, its call and how long the first one took."""
    x, y = polyop.from_numpy(a), polyop.from_numpy(b)
    s, t = torch.from_numpy(a), torch.from_numpy(b)
    u, v = jax.numpy.asarray(a), jax.numpy.asarray(b)
    torch._dynamo.reset()
    ours = polyop.compile(lambda p, q: chain(polyop, p, q), backend="c", fullgraph=True)
    xla = jax.jit(lambda p, q: chain(jax.numpy, p, q))
    inductor = torch.compile(lambda p, q: chain(torch, p, q), fullgraph=True, dynamic=False)
    found = {
        "polyop": lambda: ours(x, y),
        "jax.jit": lambda: xla(u, v).block_until_ready(),
        "torch.compile": lambda: inductor(s, t),
        "NumPy": lambda: chain(np, a, b),
    }
    return {name: (call, first_of(call)) for name, call in found.items()}


def first_of(call: Callable) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def rounds_of(found: dict[str, tuple[Callable, float]], rounds: int, number: int) -> dict:
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, (call, _) in found.items():
            start = time.perf_counter()
            for _ in range(number):
                call()
            times[name].append((time.perf_counter() - start) / number)
    return times


def text_of(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def main(only: list[str]) -> None:
    rng = np.random.default_rng(0)
    names = ["polyop", "jax.jit", "torch.compile", "NumPy"]
    lines = [f"| chain | elements | {' | '.join(names)} |", "| --- " * 6 + "|"]
    for title, chain in (("10 cheap operators", cheap), ("exp, tanh, division", heavy)):
        for size, (rounds, number) in SIZES.items():
            if only and f"{size:.0e}" not in only:
                continue
            a, b = (rng.normal(size=size).astype("f4") for _ in range(2))
            found = calls(chain, a, b)
            times = rounds_of(found, rounds, max(1, number))
            cells = [
                f"{text_of(statistics.median(times[n]))} ({text_of(min(times[n]))})" for n in names
            ]
            lines.append(f"| {title} | {size:.0e} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
            if size == 1000:
                first = [text_of(found[n][1]) for n in names]
                lines.append(f"| | first call | {' | '.join(first)} |")
                print(lines[-1], flush=True)
    if not only:
        write(lines)


def write(lines: list[str]) -> None:
    page = Path(__file__).parent / ("fused.md" if CORES == 1 else "fused_cores.md")
    cores, more = ("one core", "") if CORES == 1 else (f"{CORES} cores", " --cores")
    head = [
        "# Compiled pointwise chains",
        "",
        f"float32, {cores} for all; torch {torch.__version__}, jax {jax.__version__}, NumPy "
        f"{np.__version__}. `python bench/fused.py{more}` makes this page: medians of rounds in "
        "turn, in brackets the fastest. A first call compiles, with empty caches on disk.",
        "",
    ]
    page.write_text("\n".join([*head, *lines]) + "\n")


def alone() -> None:
    """Start again with empty caches, on one core: libraries count the cores when they load."""
    if "POLYOP_BENCH" not in os.environ:
        if "--cores" not in sys.argv:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        folder = tempfile.mkdtemp(prefix="bench-fused-")
        names = ("POLYOP_BENCH", "POLYOP_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
        os.environ.update({name: f"{folder}/{name}" for name in names})
        os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    alone()
    main([word for word in sys.argv[1:] if word != "--cores"])
