"""Frameworks as they are when nobody has used them before."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest
import torch
import torch._dynamo


@pytest.fixture
def narrow() -> Iterator[None]:
    """Give JAX its default of 32 bits for a test; others widen its numbers."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Let PyTorch's compiler know nothing before a test, and keep nothing of it."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
