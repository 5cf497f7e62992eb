"""Arrays that an author's backward makes are constants of the programs that PyTorch traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import polyop
from polyop import Tensor

MADE: dict[str, Callable[[Any], Any]] = {
    "new_zeros": lambda grad: grad.new_zeros((2,)),
    "zeros": lambda grad: polyop.zeros((2,)),
    "from_numpy": lambda grad: polyop.from_numpy(np.zeros(2, np.float32)),
}


@polyop.custom_op("constants::sine", mutates_args=())
def sine(x: Tensor, made: str) -> Tensor:
    """The sine, with a backward that adds what it made."""
    return polyop.from_numpy(np.sin(x.numpy()))


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.what = inputs[1]


sine.register_fake(lambda x, made: polyop.empty_like(x))
sine.register_autograd(
    lambda ctx, grad: (grad * polyop.cos(ctx.saved_tensors[0]) + MADE[ctx.what](grad), None),
    setup_context=_setup,
)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("made", MADE)
def test_the_traced_gradient_runs(made: str, mode: str) -> None:
    """S145: the program of a gradient runs on data, whatever it was traced on."""
    x = torch.tensor([0.5, 1.0], requires_grad=True)
    program = make_fx(lambda x: torch.autograd.grad(sine(x, made).sum(), x)[0], tracing_mode=mode)(
        x
    )
    torch.testing.assert_close(program(x), torch.cos(x))
