"""The libraries that are tested, and how many operators go which way over each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import array_api_strict
import dask.array
import jax
import jax.numpy
import pytest
import torch

from polyop.dispatch.registry import DEFINITIONS
from polyop.layers.payloads import payload_route
from polyop.payloads.libraries import library_of

MADE = {
    "torch": lambda: torch.ones(1),
    "jax": lambda: jax.numpy.ones(1),
    "dask": lambda: dask.array.ones(1),
    "array_api_strict": lambda: array_api_strict.ones(1),
}


@pytest.fixture(params=sorted(MADE))
def library(request: Any) -> Any:
    """One library after the other."""
    return library_of(MADE[request.param]())


@pytest.fixture(autouse=True)
def wide() -> Iterator[None]:
    """JAX has numbers of 64 bits here, as the others do."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def routes(name: str) -> Counter[str]:
    """Count the built-in operators on each route."""
    ops = [d.op for d in DEFINITIONS.values() if d.op.name().startswith("core::")]
    taking = [op for op in ops if any("Tensor" in str(a.type) for a in op._schema.arguments)]
    return Counter(payload_route(op, name) for op in taking)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the counts."""
    for name in sorted(MADE):
        counts = ", ".join(f"{way} {n}" for way, n in sorted(routes(name).items()))
        terminalreporter.write_line(f"routes over {name}: {counts}")
