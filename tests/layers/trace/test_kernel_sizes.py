"""Kernels of authors whose operator gives as many elements as the data say, in programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.autograd import Function
from polyop.dispatch.keyset import after_autograd_keys
from polyop.dispatch.library import Library
from polyop.graph import make_fx

Fn = Callable[..., Any]
TRACES: dict[str, Callable[[Fn, Tensor], Any]] = {
    "symbolic": lambda f, x: make_fx(f, "symbolic")(x),
    "before dispatch": lambda f, x: make_fx(f, pre_dispatch=True)(x),
    "compile": lambda f, _: polyop.compile(f),
    "export": lambda f, x: polyop.export.export(f, (x,)).module(),
}
TRACED = pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)


def op() -> Any:
    return polyop.ops.kernel_sizes.some.default


class Chosen(Function):
    """The elements above one; the gradient of each is seven."""

    @staticmethod
    def forward(x: Tensor, keys: Any) -> Any:
        return op().redispatch(keys & after_autograd_keys, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return polyop.where(ctx.saved_tensors[0] > 1, 7.0, 0.0), None


KERNELS: dict[str, Fn] = {
    "same size": lambda keys, x: Chosen.apply(x, keys) * 3,
    "another axis": lambda keys, x: (Chosen.apply(x, keys) * 3)[None] + polyop.ones(2, 1),
    "no size": lambda keys, x: (Chosen.apply(x, keys) * 3).sum(),
    "asked in it": lambda keys, x: Chosen.apply(x, keys) * op().redispatch(
        keys & after_autograd_keys, x
    ).shape[0],
}  # fmt: skip


@pytest.fixture(params=KERNELS.values(), ids=KERNELS)
def lib(request: Any) -> Iterator[Library]:
    """A library with an operator that gives what is above one, and a kernel that goes on."""
    made = Library("kernel_sizes", "DEF")
    made.define("some(Tensor x) -> Tensor")
    made.impl("some", lambda x: polyop.tensor(x.numpy()[x.numpy() > 1].copy()), "CPU")
    made.impl("some", request.param, "AutogradCPU", with_keyset=True)
    polyop.library.register_fake(
        "kernel_sizes::some",
        lambda x: x.new_empty((polyop.library.get_ctx().new_dynamic_size(),)),
        lib=made,
    )
    yield made
    made.destroy()


def value_and_gradient(fn: Fn) -> Any:
    x = polyop.tensor([1.0, 2.0, 3.0], requires_grad=True)
    out = fn(x)
    out.backward()
    assert x.grad is not None
    return out.item(), x.grad.tolist()


@TRACED
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.usefixtures("lib")
def test_the_gradient_is_that_of_the_kernel(trace: Any, requires_grad: bool) -> None:
    """S129, S153, S209: what is asserted of sizes inside does not take the call apart."""

    def fn(x: Tensor) -> Any:
        return op()(x).sum() * 2

    program = trace(fn, polyop.tensor([1.0, 2.0, 3.0], requires_grad=requires_grad))
    assert value_and_gradient(program) == value_and_gradient(fn)


@pytest.mark.parametrize("lib", [KERNELS["same size"]], indirect=True)
@pytest.mark.usefixtures("lib")
def test_the_size_of_a_result_is_asserted_of_the_call() -> None:
    """S153: what is known of the size that a result has stays in the program."""
    program = make_fx(lambda x: op()(x) * 2, "symbolic")(polyop.ones(3))
    program.graph.lint(program)
    text = str(program.graph)
    assert "below" not in text and "kernel_sizes.some(x)" in text and "assert_holds" in text
