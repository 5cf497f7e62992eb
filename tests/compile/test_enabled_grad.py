"""Grad mode inside of a compiled function, and around it (S140, S211)."""

from __future__ import annotations

from typing import Any

import numpy as np

import polyop
from polyop import Tensor, autograd


def enabled(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Switch grad mode on for a part."""
    w = x * 3
    with polyop.enable_grad():
        v = (x * x).sin()
    return v, w, v * w


def test_a_part_with_grad_mode_on_has_history_under_no_grad() -> None:
    """S211: its gradients, of both orders, are the eager ones; the rest has none."""
    x = polyop.tensor([0.3, 0.7], dtype=polyop.float64, requires_grad=True)
    found: list[Any] = []
    for fn in (enabled, compiled := polyop.compile(enabled), compiled):
        with polyop.no_grad():
            results = fn(x)
        (g,) = autograd.grad(results[0].sum(), x, create_graph=True)
        (second,) = autograd.grad(g.sum(), x)
        found.append((g.numpy(force=True), second.numpy()))
        assert [r.requires_grad for r in results] == [True, False, False]
        assert all(r.requires_grad for r in fn(x))
    for g, second in found[1:]:
        np.testing.assert_allclose(g, found[0][0])
        np.testing.assert_allclose(second, found[0][1])
