"""What every run of the tests says at its end."""

from __future__ import annotations

import gc
import os
from importlib import import_module
from typing import Any

from tests.forked import QUICK
from tests.opinfo.report import write_summary

os.environ.update(QUICK)  # before PyTorch is imported, which reads it then

#: Where the random sets of registrations begin: another number draws others.
FIRST_SEED = int(os.environ.get("POLYOP_SEED", "0"))


def pytest_configure() -> None:
    """Define the families that are defined late: some tests go through all operators there are."""
    for family in ("linalg", "running", "searching", "statistics"):
        import_module(f"polyop.ops.{family}")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over all that is imported by now, a million objects."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the seed, so that a run can be repeated, and what was compared with PyTorch."""
    terminalreporter.write_line(f"random registrations from seed {FIRST_SEED} (POLYOP_SEED)")
    write_summary(terminalreporter)
