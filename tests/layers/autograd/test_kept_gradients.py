"""What `.grad` holds: of computed tensors that keep it, and of leaves that are given one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import polyop
from polyop.errors import AutogradError


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph")
@pytest.mark.parametrize("lib", [polyop, torch], ids=["polyop", "torch"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_kept_gradients_add_up(lib: Any, create_graph: bool) -> None:
    """S138: a computed tensor's `.grad` grows with each backward, as a leaf's does."""
    x = lib.ones(3).requires_grad_()
    y = x * 2
    y.retain_grad()
    (y * 3).sum().backward(retain_graph=True, create_graph=create_graph)
    (y * 5).sum().backward(retain_graph=True)
    assert y.grad.tolist() == [8, 8, 8]
    assert x.grad.tolist() == [16, 16, 16]
    y.grad = None
    (y * y).sum().backward()
    assert y.grad.tolist() == [4, 4, 4]


def test_a_given_gradient_fits_its_tensor() -> None:
    """S138: shape and dtype are the tensor's; what does not fit changes nothing."""
    x = polyop.ones(3).requires_grad_()
    x.grad = polyop.ones(3)
    for wrong in (polyop.ones(2), polyop.ones(3, dtype=polyop.float64)):
        with pytest.raises(AutogradError, match="of its tensor"):
            x.grad = wrong
    (x * 2).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3, 3, 3]


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("lib", [polyop, torch], ids=["polyop", "torch"])
@pytest.mark.parametrize("retained", [False, True])
@pytest.mark.parametrize("with_leaf", [False, True])
def test_computed_tensors_among_the_inputs(lib: Any, retained: bool, with_leaf: bool) -> None:
    """S138: `inputs` may be computed tensors, whose gradient is added once, after its hooks."""
    x = lib.ones(3).requires_grad_()
    y = x * 2
    if retained:
        y.retain_grad()
    y.register_hook(lambda g: g * 10)
    for _ in range(2):
        (y * y).sum().backward(inputs=[x, y] if with_leaf else [y], retain_graph=True)
    assert y.grad.tolist() == [80, 80, 80]
    assert (None if x.grad is None else x.grad.tolist()) == ([160] * 3 if with_leaf else None)
