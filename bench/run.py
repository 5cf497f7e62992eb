"""Measure what polyop costs beside its peers, in one process, and keep the ratios.

    python bench/run.py            all, printed as a table and written to bench/results.md
    python bench/run.py add vmap   only these

Ours and the peer run in turn, round by round, so that both meet the same noise
of the machine; the ratio is the median of the rounds' ratios, with the empty loop
taken off, and the times are the fastest rounds. Read the ratios, not the times.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import dispatch_cases
import jax
import numpy
import torch
from cases import cases, process_rows
from measure import Row, measure


def main(names: list[str]) -> int:
    rows = []
    for case in (*cases(), *dispatch_cases.cases()):
        if not names or any(name in case.name for name in names):
            rows.append(measure(case))
            print(rows[-1].text(), flush=True)
    if not names or "mode" in names:
        rows.append(dispatch_cases.mode_row())
        print(rows[-1].text(), flush=True)
    if not names or "backward" in names:
        rows.append(dispatch_cases.node_row())
        print(rows[-1].text(), flush=True)
    if not names or "graph" in names:
        rows.append(dispatch_cases.graph_row())
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
    head = [
        "# Measured",
        "",
        f"Python {platform.python_version()}, NumPy {numpy.__version__}, "
        f"torch {torch.__version__}, jax {jax.__version__}, {platform.machine()}; "
        "`make bench` makes this page. Times are the fastest of many rounds; the ratio, which is "
        "what counts, is the median of the rounds' own, in which both run within milliseconds.",
        "",
        "| work | polyop | peer | ratio | budget | held |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    page = Path(__file__).parent / "results.md"
    page.write_text("\n".join([*head, *[row.text() for row in rows]]) + "\n")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
