"""The report as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from polyop.checking.law import LAWS
from polyop.checking.report import finding_of, law_names, parts_of, summary
from polyop.checking.run import Finding, OperatorReport

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { border: 1px solid #ccc; padding: .3rem .6rem; text-align: center; }
th:first-child { text-align: left; }
td.holds { background: #e6f4ea; } td.broken { background: #fce8e6; font-weight: bold; }
td.none { color: #777; }
section { border-left: 4px solid #c5221f; margin: 1.5rem 0; padding: .1rem 1rem; }
dt { font-weight: bold; } dd { margin: 0 0 .5rem 0; font-family: ui-monospace, monospace; }
@media (prefers-color-scheme: dark) {
  body { background: #1e1e1e; color: #ddd; } td.holds { background: #1e3a26; }
  td.broken { background: #4a1f1d; }
}
"""


def page_of(reports: Sequence[OperatorReport]) -> str:
    """Write the page: the table, then each failure with its parts."""
    failures = [_failure(report, found) for report in reports for found in report.broken]
    problems = [_problem(report) for report in reports if report.problem]
    body = [
        "<h1>Operators and laws</h1>",
        f"<p>{escape(summary(reports))}</p>",
        *_table(reports),
        *problems,
        *failures,
    ]
    head = f'<meta charset="utf-8"><title>polyop check</title><style>{STYLE}</style>'
    shown = f"<head>{head}</head><body>\n{_lines(body)}</body>"
    return f'<!doctype html>\n<html lang="en">{shown}</html>\n'


def _lines(parts: Sequence[str]) -> str:
    return "".join(part + "\n" for part in parts)


def _table(reports: Sequence[OperatorReport]) -> list[str]:
    names = "".join(f"<th>{escape(report.op.name())}</th>" for report in reports)
    rows = [_row(name, reports) for name in law_names(reports)]
    return ["<table>", f"<tr><th>law</th>{names}</tr>", *rows, "</table>"]


def _row(name: str, reports: Sequence[OperatorReport]) -> str:
    sentence = LAWS[name].sentence if name in LAWS else ""
    cells = "".join(_cell(finding_of(report, name)) for report in reports)
    return f'<tr><th title="{escape(sentence)}">{escape(name)}</th>{cells}</tr>'


def _cell(found: Finding | None) -> str:
    if found is None:
        return "<td></td>"
    verdict = found.verdict
    kind, text = {
        "holds": ("holds", "holds"), "broken": ("broken", "broken"),
        "does not apply": ("none", "&ndash;"),
    }[verdict.kind]  # fmt: skip
    return f'<td class="{kind}" title="{escape(verdict.reason)}">{text}</td>'


def _problem(report: OperatorReport) -> str:
    return (
        f"<section><h2>{escape(report.op.name())}</h2><p>{escape(report.problem)}</p>"
        f"<p>{escape(str(report.op.source))}</p></section>"
    )


def _failure(report: OperatorReport, found: Finding) -> str:
    assert found.verdict.error is not None
    parts = parts_of(found.verdict.error) | {"sample": found.sample}
    shown = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in parts.items() if text
    )
    title = escape(f"{report.op.name()}: {found.law}")
    return f"<section><h2>{title}</h2><dl>{shown}</dl></section>"
