"""Gradients that PyTorch records of operators with several results, the first time and later."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import polyop  # noqa: E402 - after the check that PyTorch is there
from polyop.library import custom_op  # noqa: E402


def _kernel(x: Any, by: float) -> Any:
    return polyop.from_numpy(x.numpy() * by), polyop.from_numpy(x.numpy() ** 2)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.by = inputs[1]


def _backward(ctx: Any, g: Any, h: Any) -> Any:
    (x,) = ctx.saved_tensors
    return g * ctx.by + h * x * 2, None


OP = custom_op(
    "torch_several::op",
    _kernel,
    mutates_args=(),
    schema="(Tensor x, float by=3.0) -> (Tensor, Tensor)",
)
OP.register_autograd(_backward, setup_context=_keep)


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("used", [(1, 1), (1, 0), (0, 1)])
def test_gradients_of_several_results(by_name: bool, used: tuple[int, int]) -> None:
    """S66, S124: whichever results are used, each call gives the gradient that the first gives."""
    for _ in range(4):
        x = torch.arange(3.0, dtype=torch.float64, requires_grad=True)
        a, b = OP(x=x, by=2.0) if by_name else OP(x)
        (a * used[0] + b * used[1]).sum().backward()
        expected = used[0] * (2.0 if by_name else 3.0) + used[1] * 2 * x.detach()
        torch.testing.assert_close(x.grad, expected)
        with torch.no_grad():
            assert not any(t.requires_grad for t in OP(x))
