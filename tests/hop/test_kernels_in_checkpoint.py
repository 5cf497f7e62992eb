"""Kernels of authors at autograd keys, in functions that `checkpoint` calls inside `func.jvp`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.dispatch.keyset import after_autograd_keys
from polyop.dispatch.library import Library
from polyop.graph import make_fx
from polyop.hop import checkpoint

Fn = Callable[..., Any]


@pytest.fixture
def body() -> Iterator[Fn]:
    """Give a function of an operator whose kernel doubles what it computes, at each level."""
    lib = Library("kernels_in_checkpoint", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    op = polyop.ops.kernels_in_checkpoint.f.default
    lib.impl("f", lambda x: polyop.tensor(x.numpy() ** 2), "CPU")
    polyop.library.register_fake(
        "kernels_in_checkpoint::f", lambda x: x.new_empty(x.shape), lib=lib
    )

    def kernel(keys: Any, x: Tensor) -> Any:
        return op.redispatch(keys & after_autograd_keys, x) * 2

    lib.impl("f", kernel, "AutogradCPU", with_keyset=True)
    yield lambda x: op(x) + x * x
    lib.destroy()


def pushed(f: Fn) -> Fn:
    return lambda x: polyop.func.jvp(f, (x,), (polyop.ones_like(x),))


def pushed_twice(f: Fn) -> Fn:
    return pushed(lambda x: polyop.func.jvp(f, (x,), (x,))[1])


WAYS: dict[str, Callable[[Fn], Fn]] = {"once": pushed, "twice": pushed_twice}
TRACES: dict[str, Callable[[Fn], Fn]] = {
    "eager": lambda f: f,
    "traced": lambda f: make_fx(f, "symbolic")(polyop.ones(2)),
    "compiled": polyop.compile,
}


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_kernel_acts_as_without_checkpoint(body: Fn, way: Any, trace: Any) -> None:
    """S99, S179: what a function calls is above autograd, wherever `checkpoint` runs it."""
    x = polyop.tensor([1.0, 2.0])
    found = trace(way(lambda x: checkpoint(body, x)))(x)
    wanted = way(body)(x)
    assert [t.tolist() for t in found] == [t.tolist() for t in wanted]


def test_the_gradient_of_a_tangent(body: Fn) -> None:
    """S138: what autograd records around the transform is the same."""

    def slope(f: Fn) -> Any:
        x = polyop.tensor([1.0, 2.0], requires_grad=True)
        value, tangent = polyop.func.jvp(f, (x,), (x * 2,))
        (value + tangent).sum().backward()
        assert x.grad is not None
        return x.grad.tolist()

    plain = slope(lambda x: x * x * x)
    assert slope(lambda x: checkpoint(lambda y: y * y * y, x)) == plain
    assert slope(lambda x: checkpoint(body, x)) == slope(body)
