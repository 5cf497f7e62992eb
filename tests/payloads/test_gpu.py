"""Arrays on a GPU: computed there, and never moved unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop.errors import UsageError


def _makers() -> dict[str, Callable[[Any], Any]]:
    found: dict[str, Callable[[Any], Any]] = {}
    if torch.cuda.is_available():
        found["torch"] = lambda x: torch.tensor(x, device="cuda")
        try:
            import cupy  # noqa: PLC0415 - only where there is a GPU
        except ImportError:
            return found
        found["cupy"] = cupy.asarray
    return found


MAKERS = _makers()


@pytest.mark.skipif(not MAKERS, reason="there is no GPU here")
@pytest.mark.parametrize("name", ["torch", "cupy"])
def test_arrays_stay_on_the_gpu(name: str) -> None:
    """S74: an array on a GPU is of the backend CUDA; gradients are computed there, data stays."""
    if name not in MAKERS:
        pytest.skip(f"{name} is not installed")
    x = polyop.from_array(MAKERS[name](np.arange(6.0).reshape(2, 3)))
    assert x.device.type == "cuda"
    g = polyop.func.grad(lambda x: polyop.sum(polyop.softmax(x @ x.T, axis=-1) * x[:, :1]))(x)
    assert g.device.type == "cuda" and type(polyop.to_array(g)) is type(polyop.to_array(x))
    view = x[1:]
    view.mul_(2)
    assert polyop.to_array(x)[1, 1] == 8
    with pytest.raises(UsageError, match="would move"):
        g.numpy()
