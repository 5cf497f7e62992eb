"""JAX as it is when nobody has widened its numbers; other tests do."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _narrow(narrow: None) -> None:
    """Every test here is of 32 bits where it says nothing else."""
