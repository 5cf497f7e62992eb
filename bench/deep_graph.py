"""Deep and wide graphs: time and memory per node of forward, backward and destruction.

Run `python bench/deep_graph.py`; it writes `deep_graph.md` beside itself.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polyop
from polyop import Tensor, autograd

Graph = Callable[[Tensor, int], Tensor]


@polyop.library.custom_op("deepbench::same", mutates_args=())
def same(x: Tensor) -> Tensor:
    """Give a copy."""
    return polyop.from_numpy(x.numpy().copy())


same.register_autograd(lambda ctx, g: g)


class Twice(autograd.Function):
    """A function with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Double it."""
        return x * 2.0

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Halve the growth."""
        return g


def chain(step: Callable[[Tensor], Tensor]) -> Graph:
    """Give a graph of one call behind the other."""

    def run(x: Tensor, n: int) -> Tensor:
        for _ in range(n):
            x = step(x)
        return x

    return run


def wide(x: Tensor, n: int) -> Tensor:
    """Add many results of one tensor."""
    return polyop.stack([polyop.sin(x) for _ in range(n)]).sum()


def ladder(x: Tensor, n: int) -> Tensor:
    """Use each value twice, so that more than one node waits."""
    y = x
    for _ in range(n // 3):
        x, y = (x + y) * 0.5, x * 0.5
    return x + y


class Case(NamedTuple):
    """One graph, and how many nodes it has."""

    name: str
    graph: Graph
    nodes: int
    create_graph: bool = False


CASES = [
    Case("chain of `x * 1.0`", chain(lambda x: x * 1.0), 1_000_000),
    Case("chain of `sin`, which saves its input", chain(polyop.sin), 1_000_000),
    Case("chain of a custom operator", chain(same), 300_000),
    Case("chain of an `autograd.Function`", chain(Twice.apply), 100_000),
    Case("ladder: each value used twice", ladder, 300_000),
    Case("wide: one tensor used often", wide, 300_000),
    Case("double backward through `sin`", chain(polyop.sin), 100_000, create_graph=True),
]


def measure(case: Case) -> list[str]:
    """Give a row of the table."""
    x = polyop.tensor(0.5, dtype=polyop.float64, requires_grad=True)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    y = case.graph(x, case.nodes // 10)
    held = (tracemalloc.get_traced_memory()[0] - before) / (case.nodes // 10)
    del y
    gc.collect()
    left = (tracemalloc.get_traced_memory()[0] - before) / (case.nodes // 10)
    tracemalloc.stop()
    start = time.perf_counter()
    y = case.graph(x, case.nodes)
    forward = time.perf_counter()
    if case.create_graph:
        (g,) = autograd.grad(y, x, create_graph=True)
        autograd.grad(g, x)
    else:
        y.backward()
    back = time.perf_counter()
    del y
    end = time.perf_counter()
    times = [forward - start, back - forward, end - back]
    micro = [f"{t / case.nodes * 1e6:.2f}" for t in times]
    return [case.name, f"{case.nodes:,}", *micro, f"{held:.0f}", f"{left:.1f}"]


HEAD = ["graph", "nodes", "forward us", "backward us", "destruction us", "bytes held", "bytes left"]
TEXT = """# Deep graphs

Written by `python bench/deep_graph.py`. Times and bytes are per node; the bytes are those of the
graph before backward, its tensors included, and of what is left once it is dropped. The limit on
Python's recursion is {limit} while all this runs: nothing recurses.

"""


def main() -> None:
    """Measure all graphs, and write the table."""
    sys.setrecursionlimit(200)
    rows = [HEAD, ["---"] * len(HEAD)]
    for case in CASES:
        rows.append(measure(case))
        print(" | ".join(rows[-1]), flush=True)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    text = TEXT.format(limit=sys.getrecursionlimit()) + table + "\n"
    Path(__file__).with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
