"""Forward mode beside the plain call: what `func.jvp` costs on large arrays and on small ones.

Run `python bench/forward_mode.py`; it writes `forward_mode.md` beside itself. Where an operator has
a loop of C for result and tangent together, it is built first, and each row is measured with and
without it.

A fresh process has malloc give large arrays pages of their own, and each call then pays for their
first touch. That ends for arrays up to the size of one that was freed, at most 32 MB: one of 31 MB
is made and freed first, so that the figures are those of a program that has run for a while.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

import polyop
from polyop import Tensor
from polyop.func import jvp
from polyop.layers.autograd.building import BUILDER
from polyop.layers.autograd.paired import PATIENT, PairedLoops

TAGS = (polyop.Tag.pointwise,)
SIZE, SMALL, BUDGET = 100_000, 3, 2.5
#: All works are gone through several times, for a machine has quiet and busy minutes.
SWEEPS, ROUNDS = 3, 25


class Work(NamedTuple):
    """A function to differentiate.

    Attributes:
        count: how many arguments it has, each with a tangent.
        passes: the kernels of NumPy that result and tangent run over whole arrays, without a loop.
        side: of square matrices, or 0 for a row of `SIZE` elements.
    """

    name: str
    fn: Callable[..., Any]
    count: int
    passes: str
    side: int = 0


def custom_sine(name: str, **options: Any) -> Callable[..., Any]:
    """Define an operator on NumPy's sine, with a backward."""

    def sine(x: Tensor) -> Tensor:
        return polyop.from_numpy(np.sin(x.numpy()))

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        (ctx.x,) = inputs

    op = polyop.custom_op(f"bench::{name}", sine, mutates_args=(), **options)
    op.register_autograd(lambda ctx, g: g * polyop.cos(ctx.x), setup_context=setup)
    return op


def with_jvp(op: Any) -> Callable[..., Any]:
    """Give an operator a forward derivative."""
    op.register_jvp(lambda ctx, t: t * polyop.cos(ctx.x))
    return op


ROWS = {name: polyop.from_numpy(np.linspace(0.1, 1.0, 316, dtype=name)) for name in ("f4", "f8")}
WORKS = [
    Work("sin", polyop.sin, 1, "sin, cos, ×"),
    Work("cos", polyop.cos, 1, "cos, sin, ×, −"),
    Work("exp", polyop.exp, 1, "exp, ×"),
    Work("log", polyop.log, 1, "log, ÷"),
    Work("sqrt", polyop.sqrt, 1, "sqrt, ×, ÷"),
    Work("tanh", polyop.tanh, 1, "tanh, ×, −, ×"),
    Work("relu", polyop.relu, 1, "max, ≤, −, and"),
    Work("abs", polyop.abs, 1, "abs, sign, ×"),
    Work("maximum", polyop.maximum, 2, "max, and nine of the text"),
    Work("x + y", polyop.add, 2, "+, +"),
    Work("x - y", polyop.subtract, 2, "−, −"),
    Work("x * 2.0", lambda x: x * 2.0, 1, "×, ×"),
    Work("x * x", lambda x: x * x, 1, "×, ×, +"),
    Work("x * y", polyop.multiply, 2, "×, ×, ×, +"),
    Work("x * y, y constant", polyop.multiply, 1, "×, ×"),
    Work("M * row, of 316 x 316", lambda x: x * ROWS[x.dtype.str[1:]], 1, "×, ×", 316),
    Work("x / y", polyop.divide, 2, "÷, ×, −, ÷"),
    Work("1 / x", lambda x: 1.0 / x, 1, "÷, ×, ÷, −"),
    Work("-x", polyop.negative, 1, "−, −"),
    Work("x ** 2", lambda x: x**2, 1, "power, ×, ×"),
    Work("x ** y", polyop.pow, 2, "power, ×, ÷, log, ×, +, ×"),
    Work("atan2", polyop.atan2, 2, "atan2, and eleven of the text"),
    Work("clip", lambda x: polyop.clip(x, 0.2, 0.8), 1, "max, min, ≥, ≤, and, and"),
    Work("where", lambda x, y: polyop.where(x > 0.5, x, y), 2, ">, where, where"),
    Work("max", polyop.max, 1, "max, =, count, find"),
    Work("sum", polyop.sum, 1, "sum, sum"),
    Work("mean", polyop.mean, 1, "mean, mean"),
    Work("max of columns", lambda x: polyop.max(x, axis=0), 1, "max, =, where, sum, ÷", 316),
    Work("sum of columns", lambda x: polyop.sum(x, axis=0), 1, "sum, sum", 316),
    Work("sum of sin(x) * x", lambda x: polyop.sum(polyop.sin(x) * x), 1, "sin, cos, ×, ..."),
    Work("custom sine, from its backward", custom_sine("plain"), 1, "sin, cos, ×"),
    Work("the same, tagged pointwise", custom_sine("tagged", tags=TAGS), 1, "sin, cos, ×"),
    Work("custom sine with a jvp", with_jvp(custom_sine("forward")), 1, "sin, cos, ×"),
    Work("matmul of 300 x 300", polyop.matmul, 2, "@, @, @, +", 300),
    Work("matmul of 300 x 300, one constant", polyop.matmul, 1, "@, @", 300),
]


def calls_of(work: Work, size: int, dtype: str = "f8") -> list[Callable[[], Any]]:
    """Give the plain call, the forward derivative, and the plain call on two inputs in turn."""
    rng = np.random.default_rng(0)
    shape = (work.side, work.side) if work.side else (size,)

    def made() -> Tensor:
        numbers = rng.uniform(0.1, 1.0, shape) - (work.name == "relu") * 0.5
        return polyop.from_numpy(numbers.astype(dtype))

    inputs, tangents, constant = (made(), made()), (made(), made()), made()
    fn, count = work.fn, work.count
    if "constant" in work.name:
        return [
            lambda: fn(inputs[0], constant),
            lambda: jvp(lambda x: fn(x, constant), inputs[:1], tangents[:1]),
            lambda: (fn(inputs[0], constant), fn(tangents[0], constant)),
        ]
    given, along = inputs[:count], tangents[:count]
    return [lambda: fn(*given), lambda: jvp(fn, given, along), lambda: (fn(*given), fn(*along))]


Rounds = list[list[float]]


def rounds_of(calls: Sequence[Callable[[], Any]], number: int) -> Rounds:
    """Run some calls in turn, round by round, and give the fastest time of each in each round."""
    found = []
    for _ in range(ROUNDS):
        best = [float("inf")] * len(calls)
        for i, call in enumerate(calls):
            call()
            for _ in range(number):
                start = time.perf_counter()
                call()
                best[i] = min(best[i], time.perf_counter() - start)
        found.append(best)
    return found


def fastest(rounds: Rounds, i: int) -> float:
    """Give the fastest time of a call, in microseconds."""
    return min(times[i] for times in rounds) * 1e6


def ratio(rounds: Rounds, i: int) -> float:
    """Give the median of a call's ratios to the first: a machine changes its speed in between."""
    return median(times[i] / times[0] for times in rounds)


def without_loops(call: Callable[[], Any]) -> Callable[[], Any]:
    """Give a call that leaves all to NumPy."""

    def run() -> Any:
        found, PairedLoops.run = PairedLoops.run, _nothing  # type: ignore[method-assign]
        try:
            return call()
        finally:
            PairedLoops.run = found  # type: ignore[method-assign]

    return run


def _nothing(*_: Any) -> None:
    return None


def has_loop(derivative: Callable[[], Any]) -> bool:
    """Have the loop of a derivative built, and tell whether there is one."""
    for _ in range(PATIENT):
        derivative()
    BUILDER.wait(120)
    seen = []
    found = PairedLoops.run

    def run(*given: Any) -> Any:
        seen.append(found(*given))
        return seen[-1]

    PairedLoops.run = run  # type: ignore[method-assign]
    try:
        derivative()
    finally:
        PairedLoops.run = found  # type: ignore[method-assign]
    return bool(seen) and seen[-1] is not None


def measured(work: Work) -> tuple[Rounds, Rounds, Rounds]:
    """Measure the plain call, the derivative, and that without a loop; in float32; on few."""
    single, (plain, derivative, _) = calls_of(work, SIZE, "f4"), calls_of(work, SIZE)
    has_loop(single[1])
    calls = [plain, derivative, *([without_loops(derivative)] if has_loop(derivative) else [])]
    number = 3 if work.side else 10
    small = [] if work.side else rounds_of(calls_of(work, SMALL)[1:2], 60)
    return rounds_of(calls, number), rounds_of(single, number), small


def row(work: Work, wide: Rounds, narrow: Rounds, small: Rounds) -> str:
    """Write the line of one function."""
    held = "yes" if ratio(wide, 1) <= BUDGET else "**no**"
    cells = [work.name, f"{fastest(wide, 0):.0f}", f"{fastest(wide, 1):.0f}"]
    cells += [f"{ratio(wide, 1):.2f}", held, f"{ratio(wide, 2):.2f}" if len(wide[0]) > 2 else "–"]
    cells += [f"{fastest(narrow, 0):.0f}", f"{ratio(narrow, 1):.2f}", f"{ratio(narrow, 2):.2f}"]
    cells.append(work.passes)
    return f"| {' | '.join([*cells, f'{fastest(small, 0):.1f}' if small else ''])} |"


HEAD = f"""# Forward mode

Written by `python bench/forward_mode.py`: Python {platform.python_version()}, NumPy
{np.__version__}, {platform.machine()}. Times are the fastest of many rounds, in microseconds, of
the plain call and of `func.jvp` in turn on {SIZE:,} elements of float64, and of `func.jvp` on
{SMALL} elements. The ratio is the median of the rounds' own, and to be at most {BUDGET}. malloc was
settled by freeing an array of 31 MB first; a process that never freed a large array pays for fresh
pages as well.

One loop of C computes result and tangent, or the tangent alone where the result has no formula with
NumPy's bits, once it was built for large arrays; "by NumPy" is the ratio without it
(POLYOP_NO_LOOPS=1), and the passes are the kernels that NumPy then runs over whole arrays. A plain
call finds its arrays in the core's own cache (0.8 or 1.6 MB; it is 1 MB on AMD's machine, and 1.25
on that of forward_mode_intel.md), where result and tangent do not fit: two calls of NumPy on two
arrays in turn take 2 to 2.6 of one. Loops begin where the last one ended, and so find a part of
them. The product of two matrices that both have a tangent is three products by arithmetic. In
float32 the plain call of a cheap operator lies whole in that cache, and four arrays still do not:
twice the memory takes up to four times as long there. "twice" is what two plain calls take of one
in float32, on the inputs and then on the tangents: a linear operator's derivative is these two
calls, and no derivative is less.

| work | plain | jvp | ratio | held | by NumPy | float32 | ratio | twice | passes | of {SMALL} |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    """Measure all, and keep the table."""
    settled = np.ones(3_900_000)
    del settled
    sweeps = [[measured(work) for work in WORKS] for _ in range(SWEEPS)]
    rows = []
    for work, *found in zip(WORKS, *sweeps, strict=True):
        rows.append(row(work, *([x for part in parts for x in part] for parts in zip(*found))))
    print("\n".join(rows))
    (Path(__file__).parent / "forward_mode.md").write_text(HEAD + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
