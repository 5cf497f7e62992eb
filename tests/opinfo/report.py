"""The table of what was compared: operators by checks, passes, and skips by reason.

Tests leave their counts in their reports, which reach the process that prints
them from wherever they ran. `POLYOP_OPINFO_REPORT` names a file to write too:
`make opinfo` keeps `bench/opinfo.md`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.opinfo.reasons import Reason

PROPERTY = "opinfo"
Counts = dict[str, Counter[str]]
#: How a check is said in the table.
SAID = {
    "values": "values", "in place": "values written in place", "gradient": "gradients",
    "forward": "forward derivatives", "second": "second derivatives",
    "mixed": "forward over reverse", "vmap": "batches against the loop",
    "batched": "gradients of a batch", "fake": "fake shapes and dtypes", "strides": "fake strides",
}  # fmt: skip


def found_in(reports: Iterable[Any]) -> dict[str, Counts]:
    """Collect the counts that tests left, by operator and check."""
    found: dict[str, Counts] = {}
    for report in reports:
        for name, text in getattr(report, "user_properties", ()):
            if name == PROPERTY and report.when == "call":
                pair, counts = json.loads(text)
                found[pair] = {check: Counter(c) for check, c in counts.items()}
    return found


def summary(found: dict[str, Counts]) -> Iterator[str]:
    """Give the lines of the table."""
    skips = sorted({r for counts in found.values() for c in counts.values() for r in c} - {"pass"})
    heads = ["check", "operators", "pass", *skips]
    rows = [heads, *[_row(check, found, skips) for check in SAID]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    for row in rows:
        cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
        yield "  ".join(cells)


def _row(check: str, found: dict[str, Counts], skips: list[str]) -> list[str]:
    counts = [c[check] for c in found.values() if check in c]
    total = sum(counts, Counter())
    operators = sum(1 for c in counts if c["pass"])
    return [SAID[check], str(operators), str(total["pass"]), *[str(total[s] or "") for s in skips]]


def page(found: dict[str, Counts]) -> str:
    """Write the page: totals, reasons, meant differences, and a row for each operator."""
    from tests.opinfo.differences import MEANT  # noqa: PLC0415 - the table alone needs no PyTorch

    lines = ["# Beside PyTorch, over its own published samples", "", INTRODUCTION, "", "```"]
    lines += [*summary(found), "```", "", "## Reasons", ""]
    lines += [f"- `{r.name}`: {r.value}" for r in Reason]
    lines += ["", "## Differences that are meant", ""]
    lines += [f"- {m.sentence}" for m in MEANT]
    lines += ["", "## Operators", "", "Passes, and after a stroke what was skipped.", ""]
    lines += [f"| PyTorch's | {' | '.join(SAID)} |", "|---" * (len(SAID) + 1) + "|"]
    lines += [_operator(name, counts) for name, counts in sorted(found.items())]
    return "\n".join(lines) + "\n"


INTRODUCTION = (
    "Every operator that PyTorch has too is called on both sides with the samples that PyTorch "
    "publishes\nfor its own tests: values in float32, float64, complex64 and complex128, all "
    "derivatives in double precision,\nbatches of two against a loop, and fake results. "
    "Written by `make opinfo`."
)


def _operator(name: str, counts: Counts) -> str:
    cells = []
    for check in SAID:
        c = counts.get(check, Counter())
        skipped = sum(c.values()) - c["pass"]
        cells.append(f"{c['pass']}" + (f" / {skipped}" if skipped else "") if c else "")
    return f"| {name} | {' | '.join(cells)} |"


def write_summary(reporter: Any) -> None:
    """Print the table at the end of a run, and write the page if a file is named."""
    found = found_in([*reporter.stats.get("passed", ()), *reporter.stats.get("failed", ())])
    if not found:
        return
    reporter.section(f"beside PyTorch: {len(found)} published operators")
    for line in summary(found):
        reporter.write_line(line)
    path = os.environ.get("POLYOP_OPINFO_REPORT")
    if path:
        Path(path).write_text(page(found))
