"""Measure what polyop costs beside its peers, in one process, and keep the ratios.

    python bench/run.py            all, printed as a table and written to bench/results.md
    python bench/run.py add vmap   only these

Ours and the peer run in turn, round by round, so that both meet the same noise
of the machine; the figure of each is its fastest round, with the empty loop
taken off. Read the ratios, not the times.
"""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 60


@dataclass
class Case:
    """One line of the table: our call, the peer's, and the budget for their ratio."""

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    peer_name: str
    budget: float  # ours / peer, at most
    ours_number: int = 200
    peer_number: int = 20
    rounds: int = ROUNDS


@dataclass
class Row:
    """What was measured."""

    name: str
    ours: float
    peer: float
    peer_name: str
    budget: float

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    def text(self) -> str:
        asked = f"≤ {self.budget:g}" if self.budget >= 1 else f"≤ 1/{1 / self.budget:g}"
        got = f"{self.ratio:.2f}" if self.ratio >= 1 else f"1/{1 / self.ratio:.1f}"
        verdict = "yes" if self.ratio <= self.budget else "**no**"
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
    """Run both in turn, and take the fastest round of each."""
    ours = timeit.Timer(case.ours)
    peer = timeit.Timer(case.peer)
    empty = timeit.Timer(lambda: None)
    case.ours(), case.peer()
    best = [float("inf")] * 3
    gc.collect()
    for _ in range(case.rounds):
        figures = (
            ours.timeit(case.ours_number) / case.ours_number,
            peer.timeit(case.peer_number) / case.peer_number,
            empty.timeit(1000) / 1000,
        )
        best = [min(a, b) for a, b in zip(best, figures, strict=True)]
    return Row(case.name, best[0] - best[2], best[1] - best[2], case.peer_name, case.budget)


def main(names: list[str]) -> int:
    sys.path.insert(0, str(Path(__file__).parent))
    from cases import cases, process_rows  # the frameworks are imported there, not for --help

    rows = []
    for case in cases():
        if not names or any(name in case.name for name in names):
            rows.append(measure(case))
            print(rows[-1].text(), flush=True)
    if not names or "import" in names:
        for row in process_rows():
            rows.append(row)
            print(row.text(), flush=True)
    if not names:
        write(rows)
    return 0


def write(rows: list[Row]) -> None:
    """Keep the table beside the benchmark."""
    import jax
    import numpy
    import torch

    head = [
        "# Measured",
        "",
        f"Python {platform.python_version()}, NumPy {numpy.__version__}, "
        f"torch {torch.__version__}, jax {jax.__version__}, {platform.machine()}; "
        "`make bench` makes this page. Times are the fastest of many rounds; the ratio is what "
        "counts.",
        "",
        "| work | polyop | peer | ratio | budget | held |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    page = Path(__file__).parent / "results.md"
    page.write_text("\n".join([*head, *[row.text() for row in rows]]) + "\n")


def run_python(code: str) -> float:
    """Run code in a fresh process; it prints seconds."""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(out.stdout)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
