"""Random operators on PyTorch's tensors follow PyTorch's stream, so that programs can run again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.bridges.marks import COMPILES
from torch.utils.checkpoint import checkpoint

import polyop
from polyop import Tensor
from polyop.errors import AutogradError

pytestmark = [*COMPILES, pytest.mark.usefixtures("forgotten")]


@polyop.custom_op("draw_tests::drop", mutates_args=(), tags="nondeterministic_seeded")
def drop(x: Tensor) -> tuple[Tensor, Tensor]:
    kept = (polyop.rand(*x.shape).numpy() > 0.5).astype("float32")
    return polyop.from_numpy(x.numpy() * kept), polyop.from_numpy(kept)


@drop.register_fake
def _(x):
    return polyop.empty_like(x), polyop.empty_like(x)


def setup(ctx, inputs, output):
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


drop.register_autograd(lambda ctx, g, _: g * ctx.saved_tensors[0], setup_context=setup)


def dropped(x: Any) -> Any:
    return drop(x)[0]


def bare(x: Any) -> Any:
    return torch.ops.draw_tests.drop(x)[0]


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("f", [dropped, bare])
def test_a_checkpoint_has_the_gradient_of_its_own_draw(f: Any, again: bool) -> None:
    """S160: what is drawn again for the gradient is what was drawn before."""
    x = torch.ones(64, requires_grad=True)
    y = checkpoint(f, x, use_reentrant=again)
    y.sum().backward()
    assert torch.equal(x.grad, y)
    assert 0 < y.sum() < 64


def test_a_compiled_checkpoint_has_the_gradient_of_its_own_draw() -> None:
    """S160: a graph that draws again draws the same."""
    x = torch.ones(64, requires_grad=True)
    program = torch.compile(
        lambda x: checkpoint(lambda x: dropped(x).sin(), x, use_reentrant=False),
        backend="aot_eager",
    )
    y = program(x)
    y.sum().backward()
    assert torch.equal(x.grad != 0, y != 0)


def test_the_seed_of_pytorch_decides_and_each_call_draws_others() -> None:
    """S160: `torch.manual_seed` makes a program of PyTorch repeatable."""
    x = torch.ones(64)
    torch.manual_seed(0)
    first, second = dropped(x), dropped(x)
    torch.manual_seed(0)
    assert torch.equal(dropped(x), first)
    assert not torch.equal(first, second)


def test_our_tensors_draw_from_our_generator() -> None:
    """S160: `polyop.manual_seed` decides where tensors are ours."""
    x = polyop.from_array(torch.ones(64))
    found = []
    for _ in range(2):
        polyop.manual_seed(0)
        found.append(polyop.to_array(dropped(x)))
    assert torch.equal(*found)


@pytest.mark.parametrize("f", [dropped, polyop.bernoulli])
def test_our_generator_is_refused_where_pytorch_runs_a_function_again(f: Any) -> None:
    """S160: PyTorch does not put our generator back, so the draws would be others."""
    x = torch.full((4,), 0.5, requires_grad=True)
    with pytest.raises(AutogradError, match="runs again for its gradient"):
        checkpoint(lambda x: polyop.to_array(f(polyop.from_array(x))), x, use_reentrant=False)
