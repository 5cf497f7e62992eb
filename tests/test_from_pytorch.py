"""docs/from-pytorch.md: every line of its tables does what it says, and no name is left out."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from polyop import errors

PAGE = Path(__file__).parent.parent / "docs" / "from-pytorch.md"
SECTION = re.compile(r"^## ", re.MULTILINE)
SPAN = re.compile(r"`` ?(.+?) ?``|`([^`]+)`")
HEADER = "| PyTorch | polyop | a line | gives |"
RULE = "| --- | --- | --- | --- |"
CHECK = doctest.OutputChecker().check_output


class Row(NamedTuple):
    """One row of a table: what PyTorch calls it, a line of Python, and what that gives."""

    line: int
    pytorch: str
    code: str
    gives: str


class Block(NamedTuple):
    """A block of Python between tables."""

    line: int
    code: str


def code_of(cell: str) -> str:
    """Give the first code in a cell."""
    found = SPAN.search(cell)
    return (found[1] or found[2]).replace("\\|", "|") if found else ""


def parts(text: str, first: int) -> Iterator[Row | Block]:
    """Give the blocks and rows of a section, in order."""
    lines = text.splitlines()
    i = 0
    while i < len(lines):
        if lines[i] == "```py":
            end = lines.index("```", i)
            yield Block(first + i + 1, "\n".join(lines[i + 1 : end]))
            i = end
        elif lines[i].startswith("| ") and lines[i] not in (HEADER, RULE):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", lines[i])[1:-1]]
            assert len(cells) == 4, f"line {first + i}: {len(cells)} cells"
            yield Row(first + i, cells[0], code_of(cells[2]), cells[3])
        i += 1


def sections() -> dict[str, list[Row | Block]]:
    """Give the parts of each section by its title."""
    text = PAGE.read_text()
    starts = [m.start() for m in SECTION.finditer(text)]
    found = {}
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        title = text[start + 3 : end].partition("\n")[0]
        found[title] = list(parts(text[start:end], text[:start].count("\n") + 1))
    return found


def rows() -> list[Row]:
    """Give all rows of the page."""
    return [part for found in sections().values() for part in found if isinstance(part, Row)]


def run(row: Row, scope: dict[str, Any]) -> str:
    """Run a row's line; give the text of what came of it, of its last expression."""
    *steps, last = ast.parse(row.code, f"{PAGE.name}:{row.line}").body
    if not isinstance(last, ast.Expr):
        steps, last = [*steps, last], ast.parse("None").body[0]
    try:
        exec(compile(ast.Module(steps, []), PAGE.name, "exec"), scope)
        return repr(eval(compile(ast.Expression(last.value), PAGE.name, "eval"), scope))
    except (errors.PolyopError, OSError) as error:
        return f"raises {type(error).__name__}"


def expected(row: Row) -> str:
    """Give the text that a row says comes of it."""
    return row.gives.replace("`", "") if row.gives.startswith("raises ") else code_of(row.gives)


def mismatches(title: str) -> Iterator[str]:
    """Run a section, in one namespace; give a line for each row that does something else."""
    scope: dict[str, Any] = {"__name__": f"from_pytorch_{title}"}
    for part in sections()[title]:
        if isinstance(part, Block):
            exec(compile("\n" * (part.line - 1) + part.code, str(PAGE), "exec"), scope)
            continue
        want, got = expected(part), run(part, scope)
        if not CHECK(want + "\n", got + "\n", doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE):
            yield f"line {part.line}: {part.code} gives {got}, not {want}"


@pytest.mark.parametrize("title", sections())
def test_every_line_gives_what_it_says(title: str) -> None:
    """S1: what the page says of a name of PyTorch is what polyop does."""
    assert list(mismatches(title)) == []


def test_every_row_runs() -> None:
    """S1: each row names something of PyTorch, and has one line that runs."""
    found = rows()
    assert len(found) > 200
    assert [row.line for row in found if not code_of(row.pytorch) or not row.code] == []
