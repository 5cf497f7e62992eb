"""Operators that are made of others are taken apart by PyTorch's compilers too."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import polyop
from polyop.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@polyop.custom_op("torch_parts::square", mutates_args=())
def square(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() ** 2)


square.register_fake(polyop.empty_like)
square.register_autograd(
    lambda ctx, g: g * 2 * ctx.saved_tensors[0],
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


def made(name: str, schema: str, fn: Any) -> Any:
    """Define an operator by what it is made of, and nothing else."""
    polyop.library.define(f"torch_parts::{name}", schema)
    polyop.library.impl(f"torch_parts::{name}", "CompositeImplicitAutograd", fn)
    return getattr(polyop.ops.torch_parts, name)


scaled = made("scaled", "(Tensor x, float a=1.5) -> Tensor", lambda x, a=1.5: polyop.tanh(x * a))
mixed = made(
    "mixed",
    "(Tensor x, Tensor[] ys, int n) -> (Tensor, Tensor[])",
    lambda x, ys, n: (square(x), [y * n for y in ys]),
)


def theirs(x: Any) -> Any:
    """Compute `scaled` and `mixed` by PyTorch."""
    return torch.tanh(x * 1.5) + x**2 + x * 3


def ours(x: Any) -> Any:
    """Compute the same by operators."""
    first, (second,) = mixed(x, [x], 3)
    return scaled(x) + first + second


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_they_are_compiled_whole(backend: str) -> None:
    """S146: no fake rule is needed, and gradients are those of the parts."""
    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    found = torch.compile(ours, backend=backend, fullgraph=True)(x)
    torch.testing.assert_close(found, theirs(x))
    slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (found, theirs(x))]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("strict", [False, True])
def test_they_are_exported(strict: bool) -> None:
    """S146: in both ways of `torch.export`, with sizes that change."""

    class Model(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return ours(x)

    sizes = {"x": {0: torch.export.Dim("n", min=2)}}
    program = torch.export.export(Model(), (torch.rand(4),), dynamic_shapes=sizes, strict=strict)
    x = torch.rand(7)
    torch.testing.assert_close(program.module()(x), theirs(x))


def test_they_pass_opcheck() -> None:
    """S146: PyTorch's own checks of an operator hold, and its transforms see the parts."""
    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    handle = torch.ops.torch_parts.scaled
    found = torch.library.opcheck(handle.default, (x,))
    assert set(found.values()) == {"SUCCESS"}
    hessians = [torch.func.hessian(lambda x, f=f: f(x).sum())(x) for f in (handle, scaled)]
    torch.testing.assert_close(*hessians)


def test_other_parts_are_compiled_anew() -> None:
    """S146: compiled code does not keep what an operator was made of before."""
    op = made("changed", "(Tensor x) -> Tensor", lambda x: x * 2)
    compiled = torch.compile(lambda x: op(x) + 0, backend="aot_eager", fullgraph=True)
    x = torch.ones(2)
    assert compiled(x).tolist() == [2, 2]
    polyop.library.impl("torch_parts::changed", "CompositeImplicitAutograd", lambda x: x * 7)
    assert compiled(x).tolist() == [7, 7]


def test_a_kernel_that_comes_late_is_refused() -> None:
    """S146: PyTorch records the parts of what it has met; a kernel instead would have no graph."""
    op = made("late", "(Tensor x) -> Tensor", lambda x: x * 2)
    x = torch.ones(2, requires_grad=True)
    assert torch.autograd.grad(torch.ops.torch_parts.late(x).sum(), x)[0].tolist() == [2, 2]
    polyop.library.impl("torch_parts::late", "CPU", lambda x: polyop.from_numpy(x.numpy() * 2))
    with pytest.raises(UsageError, match="nothing but its parts when PyTorch met it"):
        op(x)


def test_a_rule_beside_the_parts() -> None:
    """S146: with a gradient of its own it is one node, whose fake comes of the parts."""
    op = made("ruled", "(Tensor x) -> Tensor", lambda x: x * x)
    polyop.library.register_autograd("torch_parts::ruled", lambda ctx, g: g * 100)
    x = torch.ones(2, requires_grad=True)
    compiled = torch.compile(lambda x: op(x) + 0, backend="aot_eager", fullgraph=True)
    assert compiled(x.detach()).tolist() == [1, 1]
    assert torch.autograd.grad(compiled(x).sum(), x)[0].tolist() == [100, 100]


def test_a_size_that_depends_on_data_has_a_size_for_a_bound() -> None:
    """S143: a bound that is a size itself is left out where sizes are symbols."""

    @polyop.custom_op("torch_parts::positive", mutates_args=())
    def positive(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy((x.numpy() > 0).nonzero()[0])

    @positive.register_fake
    def positive_fake(x: Any) -> Any:
        size = polyop.library.get_ctx().new_dynamic_size(max=x.shape[0])
        return x.new_empty([size], dtype=polyop.int64)

    class Model(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return positive(x) * 2

    sizes = {"x": {0: torch.export.Dim("n")}}
    x = torch.tensor([3.0, -1.0, 2.0])
    for shapes in (None, sizes):
        program = torch.export.export(Model(), (x,), dynamic_shapes=shapes)
        assert program.module()(x).tolist() == [0, 4]
    compiled = torch.compile(Model(), backend="aot_eager", fullgraph=True, dynamic=True)
    assert compiled(x).tolist() == [0, 4]
