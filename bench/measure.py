"""What a benchmark case is, and how one is measured: ours and the peer in turn, round by round."""

from __future__ import annotations

import gc
import subprocess
import sys
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

ROUNDS = 200


@dataclass
class Case:
    """One line of the table: our call, the peer's, and the budget for their ratio."""

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    peer_name: str
    budget: float | None  # ours / peer, at most; None for a figure without one
    ours_number: int = 200
    peer_number: int = 20
    rounds: int = ROUNDS


@dataclass
class Row:
    """What was measured: times, and the ratio if it is not that of these."""

    name: str
    ours: float
    peer: float
    peer_name: str
    budget: float | None
    of_rounds: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.peer if self.of_rounds is None else self.of_rounds

    def text(self) -> str:
        budget = self.budget
        asked, verdict = "", ""
        if budget is not None:
            asked = f"≤ {budget:g}" if budget >= 1 else f"≤ 1/{1 / budget:g}"
            verdict = "yes" if self.ratio <= budget else "**no**"
        got = f"{self.ratio:.2f}" if self.ratio >= 1 else f"1/{1 / self.ratio:.1f}"
        return (
            f"| {self.name} | {_time(self.ours)} | {self.peer_name}: {_time(self.peer)} "
            f"| {got} | {asked} | {verdict} |"
        )


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def measure(case: Case) -> Row:
    """Run both in turn: the fastest round of each, and the median of the rounds' ratios.

    A machine that changes its speed does so between rounds, and seldom within one.
    """
    ours = timeit.Timer(case.ours)
    peer = timeit.Timer(case.peer)
    empty = timeit.Timer(lambda: None)
    case.ours(), case.peer()
    rounds = []
    gc.collect()
    for _ in range(case.rounds):
        rest = empty.timeit(1000) / 1000
        first = ours.timeit(case.ours_number) / case.ours_number - rest
        second = peer.timeit(case.peer_number) / case.peer_number - rest
        rounds.append((first, second))
    ratio = median(first / second for first, second in rounds)
    fastest = [min(times) for times in zip(*rounds, strict=True)]
    return Row(case.name, *fastest, case.peer_name, case.budget, ratio)


def run_python(code: str) -> float:
    """Run code in a fresh process; it prints seconds."""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(out.stdout)
