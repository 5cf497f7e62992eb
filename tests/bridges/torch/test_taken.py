"""Data that an author takes out of tensors in `setup_context`, on PyTorch's tensors (S133)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop as P
from polyop import Library
from polyop.errors import MissingGradientError

torch: Any = pytest.importorskip("torch")


@pytest.fixture(
    params=[lambda t: t.numpy(), np.from_dlpack, lambda t: np.asarray(P.to_array(t))],
    ids=["numpy", "dlpack", "to_array"],
)
def wave(request: Any) -> Iterator[Any]:
    """Give sin, whose `setup_context` keeps the cosine as plain data."""

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.slope = np.cos(request.param(inputs[0]))

    lib = Library("taken_torch", "DEF")
    lib.define("wave(Tensor x) -> Tensor")
    lib.impl("wave", lambda x: P.from_numpy(np.sin(x.numpy())), "CPU")
    P.library.register_autograd(
        "taken_torch::wave", lambda ctx, g: g * P.from_numpy(ctx.slope), setup_context=keep, lib=lib
    )
    yield P.ops.taken_torch.wave
    lib._destroy()


@pytest.mark.parametrize("count", [2, 5000])
def test_the_first_derivative_is_right_and_the_second_refused(wave: Any, count: int) -> None:
    x = torch.linspace(0, 1, count, dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad(wave(x).sum(), x)
    (found,) = torch.autograd.grad(wave(x).sum(), x, create_graph=True)
    torch.testing.assert_close(plain, torch.cos(x.detach()))
    torch.testing.assert_close(found.detach(), plain)
    with pytest.raises(MissingGradientError, match="took out of tensors"):
        torch.autograd.grad(found.sum(), x)


def test_the_way_to_what_came_in_is_right(wave: Any) -> None:
    """Twice backwards gives the derivative along a direction."""
    x = torch.tensor([0.3, 0.5], dtype=torch.float64)
    _, along = torch.autograd.functional.jvp(wave, x, torch.ones_like(x))
    torch.testing.assert_close(along, torch.cos(x))
    x.requires_grad_()
    g = torch.ones_like(x, requires_grad=True)
    (found,) = torch.autograd.grad(wave(x), x, g, create_graph=True)
    (back,) = torch.autograd.grad(found.sum(), g, create_graph=True)
    with pytest.raises(MissingGradientError, match="took out of tensors"):
        torch.autograd.grad(back.sum(), x)
