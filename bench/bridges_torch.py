"""What calls through PyTorch's bridge cost, beside operators written by hand for PyTorch.

    python bench/bridges_torch.py           prints the table
    python bench/bridges_torch.py --keep    and keeps it in bench/bridges.md

All three have the same NumPy kernel, gradient and fake rule: ours, one of `torch.library.Library`,
and one of `torch.library.custom_op`. They are called in turn, a few calls of each at a time, and
each call is measured; the figure is the tenth part of the calls from below, which other work on
the machine does not touch. Read the ratios.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import polyop


@polyop.custom_op("bridge_bench::sin", mutates_args=())
def sin(x: polyop.Tensor) -> polyop.Tensor:
    """The operator of ours."""
    return polyop.from_numpy(np.sin(x.numpy()))


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])


sin.register_fake(lambda x: polyop.empty_like(x))
sin.register_autograd(
    lambda ctx, grad: grad * polyop.cos(ctx.saved_tensors[0]), setup_context=_setup
)


def _by_hand(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.sin(x.detach().numpy()))


def _by_hand_backward(ctx: Any, grad: Any) -> Any:
    return grad * torch.cos(ctx.saved_tensors[0])


LIBRARY: Any = torch.library.Library("bridge_bench_hand", "DEF")
LIBRARY.define("sin(Tensor x) -> Tensor")
LIBRARY.impl("sin", _by_hand, "CPU")
torch.library.register_fake("bridge_bench_hand::sin", torch.empty_like, lib=LIBRARY)
torch.library.register_autograd(
    "bridge_bench_hand::sin", _by_hand_backward, setup_context=_setup, lib=LIBRARY
)
custom: Any = torch.library.custom_op("bridge_bench_custom::sin", mutates_args=())(_by_hand)
custom.register_fake(torch.empty_like)
custom.register_autograd(_by_hand_backward, setup_context=_setup)

Case = Callable[[Any], Any]
x, y = torch.rand(16), torch.rand(16, requires_grad=True)
CASES: dict[str, Case] = {
    "no grad": lambda f: f(x),
    "recorded": lambda f: f(y),
    "with `sum().backward()`": lambda f: f(y).sum().backward(),
}


def measured(run: dict[str, Callable[[], Any]], rounds: int = 80, calls: int = 20) -> list[float]:
    """Give what a call of each costs, in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in run}
    for one in run.values():
        for _ in range(5):
            one()
    for _ in range(rounds):
        for name, one in run.items():
            for _ in range(calls):
                start = time.perf_counter()
                one()
                times[name].append(time.perf_counter() - start)
    return [sorted(times[name])[len(times[name]) // 10] * 1e6 for name in run]


def row(name: str, functions: list[Any], case: Case) -> str:
    """Measure one kind of call, and give a row of the table."""
    run: dict[str, Callable[[], Any]] = {str(i): partial(case, f) for i, f in enumerate(functions)}
    ours, hand, op = measured(run)
    return f"| {name} | {ours:.1f} | {hand:.1f} | {op:.1f} | {ours / hand:.2f} | {ours / op:.2f} |"


def table() -> str:
    """Measure everything."""
    functions = [sin, torch.ops.bridge_bench_hand.sin.default, custom]
    head = "| 16 elements, µs | polyop | `Library` | `custom_op` | to `Library` | to `custom_op` |"
    rows = [head, "| --- | --- | --- | --- | --- | --- |"]
    rows += [row(name, functions, case) for name, case in CASES.items()]
    if shutil.which("g++"):
        compiled = [torch.compile(_around(f), fullgraph=True) for f in functions]
        rows += [row(f"Inductor, {name}", compiled, case) for name, case in CASES.items()]
    return "\n".join(rows)


def _around(f: Any) -> Any:
    return lambda x: f(x) * 2 + 1


def keep(text: str) -> None:
    """Put the table in the place of the one in the section for PyTorch."""
    page = Path(__file__).parent / "bridges.md"
    before = page.read_text() if page.exists() else "# Bridges, measured\n"
    sections = [s for s in before.split("\n## ") if not s.startswith("PyTorch\n")]
    about = (
        "`python bench/bridges_torch.py --keep` makes this section. The same NumPy sine in three "
        "forms: an operator of ours, one of `torch.library.Library` and one of "
        "`torch.library.custom_op`, each with fake rule and gradient."
    )
    page.write_text("\n## ".join([*sections, f"PyTorch\n\n{about}\n\n{text}\n"]))


if __name__ == "__main__":
    found = table()
    print(found)
    if "--keep" in sys.argv:
        keep(found)
