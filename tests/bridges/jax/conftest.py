"""JAX as it is when nobody has widened its numbers; other tests do."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def narrow() -> Iterator[None]:
    """Give JAX its default of 32 bits for a test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", before)
