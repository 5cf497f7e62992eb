"""Lists in which None stands beside tensors: gradients of PyTorch find the tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tests.bridges.marks import COMPILES

import polyop
from polyop import Tensor
from polyop.errors import AutogradError, MutationError, VmapError

pytestmark = [*COMPILES, pytest.mark.usefixtures("forgotten")]
List = list[Tensor | None]


def _sum(xs: Sequence[Any] | None) -> Any:
    return sum(3 * x.numpy() for x in xs or () if x is not None)


@polyop.custom_op("listed_tests::total", mutates_args=())
def total(xs: List, s: Tensor, *, more: List | None = None) -> Tensor:
    """`s`, and three times each tensor in the lists."""
    return polyop.from_numpy(s.numpy() + _sum(xs) + _sum(more))


total.register_fake(lambda xs, s, *, more=None: polyop.empty_like(s))


def total_setup(ctx: Any, inputs: Any, keyword_only_inputs: Any, output: Any) -> None:
    ctx.lists = inputs[0], keyword_only_inputs["more"]


def total_backward(ctx: Any, grad: Any) -> Any:
    return dict(zip(("xs", "more"), [_mirror(v, grad) for v in ctx.lists], strict=True)) | {
        "s": grad
    }


def _mirror(value: Any, grad: Any) -> Any:
    return None if value is None else [None if x is None else 3 * grad for x in value]


total.register_autograd(total_backward, setup_context=total_setup)


@polyop.custom_op("listed_tests::add_", mutates_args=("w",))
def add_(w: Tensor, xs: List) -> None:
    """Add the tensors in a list."""
    w.numpy()[...] += _sum(xs)


add_.register_fake(lambda w, xs: None)
CALLS: dict[str, Callable[[Any], Any]] = {
    "list": lambda x: total([x, None], torch.ones(2)),
    "beside": lambda x: total([None, x], x),
    "optional": lambda x: total([None], torch.ones(2), more=[x, None, torch.ones(2), x]),
    "handle": lambda x: torch.ops.listed_tests.total([None, x], torch.ones(2), [x, None]),
}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("call", CALLS)
def test_gradients_flow_past_none(call: str, backend: str) -> None:
    """S125, S126: handle, compiled and exported program give the gradient that eager calls give."""

    class Module(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return CALLS[call](x) * x

    total([None], torch.ones(2))
    programs = [Module(), torch.compile(Module(), backend=backend, fullgraph=True)]
    programs.append(torch.export.export(Module(), (torch.ones(2),)).module())
    grads = []
    for f in programs:
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        grads += torch.autograd.grad(f(x).sum(), x)
    slope = {"list": 3, "beside": 4, "optional": 6, "handle": 6}[call]
    rest = {"list": 1, "beside": 0, "optional": 4, "handle": 1}[call]
    wanted = 2 * slope * torch.tensor([1.0, 2.0]) + rest
    for grad in grads:
        torch.testing.assert_close(grad, wanted)


def test_pytorch_checks_hold() -> None:
    """S205: PyTorch's own checks find no fault with the operator, gradients included."""
    x, s = (torch.rand(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    handle = torch.ops.listed_tests.total.default
    found = torch.library.opcheck(handle, ([x, None], s, [None, s]))
    assert set(found.values()) == {"SUCCESS"}
    assert torch.autograd.gradcheck(lambda x, s: handle([None, x], s, [s]), (x, s))


def test_what_needs_no_gradient_has_none() -> None:
    """S126: without grad mode, or a tensor that requires grad, nothing is recorded."""
    handle, x = torch.ops.listed_tests.total, torch.ones(2)
    assert not handle([x, None], x).requires_grad
    with torch.no_grad():
        assert not handle([x.requires_grad_(), None], x).requires_grad


def test_transforms_of_a_handle_are_never_zero_in_silence() -> None:
    """S134: what PyTorch cannot transform it refuses, as without a None."""
    handle = torch.ops.listed_tests.total
    with pytest.raises(RuntimeError, match=r"autograd.Function with functorch"):
        torch.func.grad(lambda x: handle([x, None], torch.ones(2)).sum())(torch.ones(2))
    found = torch.func.grad(lambda x: total([x, None], torch.ones(2)).sum())(torch.ones(2))
    assert torch.equal(found, torch.full((2,), 3.0))


def test_a_write_beside_a_recorded_tensor_is_refused() -> None:
    """S135: a gradient would not see what is added, be there a None in the list or not."""
    x, w = torch.ones(2, requires_grad=True), torch.zeros(2)
    for call in (add_, torch.ops.listed_tests.add_):
        for xs in ([x], [None, x]):
            with pytest.raises(MutationError, match="listed_tests::add_ writes w"):
                call(w, xs)
        with torch.no_grad():
            call(w, [x, None])
    assert torch.equal(w, torch.full((2,), 6.0))


@polyop.custom_op("listed_tests::add_to", mutates_args=("sums",))
def add_to(x: Tensor, sums: List) -> None:
    """Add x to the tensors in a list."""
    for total in sums:
        if total is not None:
            total.numpy()[...] += x.numpy()


def test_a_batch_of_writes_past_none() -> None:
    """S159: what is absent from a written list is not shared by the samples."""

    def fn(x: Any, y: Any) -> Any:
        add_to(x, [None, y])
        return y

    x = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(torch.vmap(fn)(x, torch.zeros(2, 3)), x)
    with pytest.raises(VmapError, match="which all samples share"):
        torch.vmap(fn, (0, None))(x, torch.zeros(3))


@polyop.custom_op("listed_tests::sine", mutates_args=())
def sine(x: Tensor, numbers: list[int]) -> Tensor:
    """The sine of x, beside a list of numbers."""
    return polyop.from_numpy(np.sin(x.numpy()))


sine.register_autograd(lambda ctx, grad: (grad, [None] * 2))


def test_a_gradient_for_a_list_of_numbers() -> None:
    """S128: it is refused as the same operator's on tensors of ours."""
    for x in (torch.ones(2, requires_grad=True), polyop.ones(2, requires_grad=True)):
        with pytest.raises(AutogradError, match="numbers"):
            sine(x, [1, 2]).sum().backward()
