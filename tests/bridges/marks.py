"""Marks that tests of several frameworks share."""

from __future__ import annotations

import pytest

#: PyTorch compiles and exports with what it has deprecated itself.
COMPILES = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
#: In each framework as it is at first; operators without a batching rule may say so.
EVERYWHERE = [
    *COMPILES,
    pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning"),
    pytest.mark.usefixtures("narrow", "forgotten"),
]
