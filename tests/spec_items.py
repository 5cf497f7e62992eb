"""Prints the items of docs/specification.md that no test cites: `python tests/spec_items.py`.

A test cites an item by its number in a docstring or comment: `S12`, or a range, `S12 to S15`.
Items marked as later, as a whole, need none.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
SPECIFICATION = HERE.parent / "docs" / "specification.md"
ITEM = re.compile(r"^\*\*S(\d+)\*\* *(.*(?:\n(?!\*\*S|#).*)*)", re.MULTILINE)
CITED = re.compile(r"\bS(\d+)(?:(?: to |-|\u2013)S?(\d+))?\b")


def items() -> dict[int, tuple[str, str]]:
    """Give each item by its number: the section's title, and the text."""
    found: dict[int, tuple[str, str]] = {}
    for section in re.split(r"^## ", SPECIFICATION.read_text(), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        found |= {int(n): (title, " ".join(text.split())) for n, text in ITEM.findall(section)}
    return found


def cited() -> set[int]:
    """Give the numbers that tests cite."""
    numbers: set[int] = set()
    for path in HERE.rglob("*.py"):
        if path != Path(__file__):
            for first, last in CITED.findall(path.read_text()):
                numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def without_test() -> list[str]:
    """Give a line for each item that no test cites."""
    known = cited()
    return [
        f"S{n} ({title}): {text[:90]}"
        for n, (title, text) in sorted(items().items())
        if n not in known and not text.endswith(": [later].")
    ]


if __name__ == "__main__":
    missing = without_test()
    print(*missing, f"{len(items())} items, {len(missing)} without a test", sep="\n")
    sys.exit(bool(missing))
