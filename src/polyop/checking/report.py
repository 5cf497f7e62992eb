"""Reports: a table of operators and laws in the terminal, the same as data.

The failures come below the table, each with what was declared, what was
seen, where, and what to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from polyop.checking.run import Finding, OperatorReport
from polyop.errors import OpCheckError

#: More operators than these are rows of the table, and laws columns with numbers.
MAX_COLUMNS = 3
MARKS = {"holds": "[green]ok[/]", "broken": "[bold red]BROKEN[/]", "does not apply": "[dim]-[/]"}


def print_report(reports: Sequence[OperatorReport], console: Console, *, quiet: bool) -> None:
    """Print the table, the failures, and one line that sums up."""
    if law_names(reports) and not quiet:
        console.print(table_of(reports))
    for report in reports:
        print_failures(report, console)
        if not quiet:
            print_remarks(report, console)
    console.print(summary(reports), style="bold", soft_wrap=True)


def table_of(reports: Sequence[OperatorReport]) -> Table:
    """Make the table: laws down and operators across, the other way round for many operators."""
    return _wide(reports) if len(reports) > MAX_COLUMNS else _narrow(reports)


def _wide(reports: Sequence[OperatorReport]) -> Table:
    names = law_names(reports)
    legend = ", ".join(f"{i} {name.removeprefix('test_')}" for i, name in enumerate(names, 1))
    look: dict[str, Any] = {"box": SIMPLE_HEAD, "padding": 0, "pad_edge": False}
    table = Table(title="operators and laws", title_justify="left", caption=legend, **look)
    table.add_column("operator", overflow="fold")
    for i in range(1, len(names) + 1):
        table.add_column(str(i), justify="center", no_wrap=True)
    for report in reports:
        marks = [_mark(report, name).replace("BROKEN", "X") for name in names]
        table.add_row(escape(report.op.name()), *marks)
    return table


def _narrow(reports: Sequence[OperatorReport]) -> Table:
    table = Table(title="operators and laws", title_justify="left")
    table.add_column("law", no_wrap=True)
    for report in reports:
        table.add_column(escape(report.op.name()), justify="center", overflow="fold")
    for name in law_names(reports):
        table.add_row(name.removeprefix("test_"), *[_mark(report, name) for report in reports])
    return table


def law_names(reports: Sequence[OperatorReport]) -> list[str]:
    """Give the names of all laws that were tried, in order."""
    return list(dict.fromkeys(f.law for report in reports for f in report.findings))


def _mark(report: OperatorReport, name: str) -> str:
    found = finding_of(report, name)
    return MARKS[found.verdict.kind] if found else ""


def finding_of(report: OperatorReport, name: str) -> Finding | None:
    """Give what one law says of an operator."""
    return next((f for f in report.findings if f.law == name), None)


def print_failures(report: OperatorReport, console: Console) -> None:
    """Print why an operator fails."""
    name = escape(report.op.name())
    if report.problem:
        console.print(f"\n[bold red]{name}[/]: {escape(report.problem)}", soft_wrap=True)
        console.print(f"  where:    {escape(str(report.op.source))}", soft_wrap=True)
    for found in report.broken:
        text = escape(str(found.verdict.error))
        console.print(f"\n[bold red]{name}[/] at {escape(found.sample)}", soft_wrap=True)
        console.print(text, soft_wrap=True, highlight=False)


def print_remarks(report: OperatorReport, console: Console) -> None:
    """Print why laws do not apply, and the notes of those that hold."""
    for found in report.findings:
        verdict = found.verdict
        if verdict.reason and not verdict.broken:
            said = "does not apply" if verdict.kind == "does not apply" else "note"
            line = f"{report.op.name()}: {found.law}: {said}: {verdict.reason}"
            console.print(escape(line), style="dim", soft_wrap=True, highlight=False)


def summary(reports: Sequence[OperatorReport]) -> str:
    """Sum up in one line."""
    broken = sum(len(report.broken) for report in reports)
    unchecked = sum(1 for report in reports if report.problem)
    parts = [count(len(reports), "operator"), count(broken, "broken law")]
    if unchecked:
        parts.append(f"{unchecked} not checked")
    return ", ".join(parts)


def count(n: int, thing: str) -> str:
    """Give a number with its noun."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


# -- as data ------------------------------------------------------------------


def data_of(reports: Sequence[OperatorReport]) -> dict[str, Any]:
    """Give the reports as plain data, for JSON."""
    return {
        "ok": all(report.ok for report in reports),
        "operators": [_operator_data(report) for report in reports],
    }


def _operator_data(report: OperatorReport) -> dict[str, Any]:
    return {
        "name": report.op.name(),
        "schema": str(report.op._schema),
        "source": str(report.op.source),
        "samples": report.samples,
        "problem": report.problem,
        "laws": {found.law: _finding_data(found) for found in report.findings},
    }


def _finding_data(found: Finding) -> dict[str, Any]:
    data: dict[str, Any] = {"verdict": found.verdict.kind, "reason": found.verdict.reason}
    if found.verdict.error is not None:
        data |= {"sample": found.sample, **parts_of(found.verdict.error)}
    return data


def parts_of(error: OpCheckError) -> dict[str, str]:
    """Give the parts of an error by name."""
    return {
        "problem": error.problem,
        "argument": error.argument,
        "declared": error.declared,
        "seen": error.seen,
        "where": error.source,
        "fix": error.fix,
    }
