"""Every block of Python in the README and in docs/ runs, in order, one page at a time."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import polyop

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[tuple[int, str]]:
    """Give the line and text of each ```python block."""
    text = page.read_text()
    return [
        (text[: m.start(1)].count("\n") + 1, m.group(1))
        for m in re.finditer(r"```python\n(.*?)```", text, re.DOTALL)
    ]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.exists() and blocks(p)], ids=lambda p: p.name
)
def test_a_page_runs(page: Path) -> None:
    """The blocks of a page run from the first to the last."""
    scope: dict[str, object] = {"__name__": f"docs_{page.stem}"}
    for line, code in blocks(page):
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), scope)


MODULES = [
    m.name for m in pkgutil.walk_packages(polyop.__path__, "polyop.") if "__main__" not in m.name
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    """The examples in the docstrings of a module print what they say."""
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in finder.find(module, name):
        runner.run(test)
    assert runner.failures == 0
