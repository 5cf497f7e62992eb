"""The figures that the README and the examples' page say are those of what they speak of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def cells(operator: str) -> list[str]:
    """Give a row of the README's table of laws."""
    found = re.search(rf"^ {operator} +(.*)$", README, re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_the_table_is_the_command_s() -> None:
    """S207: the README's table has the laws that `polyop check` tries, in its order."""
    command = [sys.executable, "-m", "polyop", "check", str(ROOT / "examples" / "window.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = re.findall(r"^│ (\w+) +│ +(\S+) +│$", done.stdout, re.MULTILINE)
    legend = re.search(r"1 schema,\s[\w\s,]*serialisation", README)
    assert legend is not None
    columns = re.findall(r"(\d+)\s+([a-z]\w+)", legend[0])
    assert [name for _, name in columns] == [name for name, _ in rows]
    assert [number for number, _ in columns] == cells("operator")
    assert cells("examples::hann") == [mark for _, mark in rows]


def test_counts_of_the_benchmarks() -> None:
    """The README counts the budgets that are not held, and the forms of a call."""
    words = {"none": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
    said = re.search(r"every budget is held; (\w+) (?:is|are) not on the other", README)
    assert said is not None
    results = (ROOT / "bench" / "results.md").read_text()
    assert words[said[1]] == results.count("**no**")
    forms = re.search(r"calls\.md\) has (\d+) forms of a call", README)
    assert forms is not None
    table = (ROOT / "bench" / "calls.md").read_text()
    assert int(forms[1]) == len(re.findall(r"^\| (?!form |---)", table, re.MULTILINE))


def test_the_examples_are_of_their_names() -> None:
    """Each operator that the examples' page names is defined in the file beside it."""
    rows = re.findall(
        r"^\| `([\w/.]+)` \| (.*?) \|", (ROOT / "examples" / "README.md").read_text(), re.MULTILINE
    )
    assert rows
    for place, named in rows:
        path = ROOT / "examples" / place
        files = [path] if path.is_file() else sorted(path.rglob("*.py"))
        text = "\n".join(file.read_text() for file in files)
        for name in re.findall(r"`(\w+)::(\w+)`", named):
            assert name[1] in text, f"{place} has no {'::'.join(name)}"
