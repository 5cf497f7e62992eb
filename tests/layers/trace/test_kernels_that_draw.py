"""Kernels of authors that draw or write beside their result, in programs that passes change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.dispatch.keyset import after_autograd_keys
from polyop.dispatch.library import Library
from polyop.extend import is_impure
from polyop.graph import make_fx

Fn = Callable[..., Any]


def op() -> Any:
    return polyop.ops.kernels_that_draw.f.default


def drawing(keys: Any, x: Tensor) -> Any:
    return op().redispatch(keys & after_autograd_keys, x) * polyop.rand(1)


def below(keys: Any, x: Tensor) -> Any:
    return op().redispatch(keys & after_autograd_keys, x)


@pytest.fixture
def lib() -> Iterator[Library]:
    """A library with an operator that squares, with a gradient and a tangent."""
    made = Library("kernels_that_draw", "DEF")
    made.define("f(Tensor x) -> Tensor")
    made.impl("f", lambda x: polyop.tensor(x.numpy() ** 2), "CPU")
    name = "kernels_that_draw::f"
    polyop.library.register_fake(name, lambda x: x.new_empty(x.shape), lib=made)
    yield made
    made.destroy()


FUNCTIONS: dict[str, Fn] = {
    "value": lambda x: op()(x) + 1,
    "unread": lambda x: (op()(x), x * 1)[1],
    "twice": lambda x: op()(x) + op()(x),
    "grad": polyop.func.grad(lambda x: op()(x).sum()),
    "tangent": lambda x: polyop.func.jvp(lambda y: op()(y) * y, (x,), (x,))[1],
}


@pytest.mark.parametrize("fn", FUNCTIONS.values(), ids=FUNCTIONS)
def test_an_export_draws_as_often(lib: Library, fn: Fn) -> None:
    """S198, S209, S213: a call whose kernel draws is neither dropped nor merged."""
    lib.impl("f", drawing, "AutogradCPU", with_keyset=True)
    x = polyop.tensor([1.0, 2.0])
    program = polyop.export.export(fn, (polyop.ones(2),)).module()
    found = []
    for run in (fn, program):
        polyop.manual_seed(0)
        found.append((run(x).tolist(), polyop.rand(1).tolist()))
    assert found[0] == found[1]


def on_its_own(keys: Any, x: Tensor) -> Any:
    out = below(keys, x)
    out.reshape(-1).add_(x)
    return out


def on_its_input(keys: Any, x: Tensor) -> Any:
    out = below(keys, x)
    x.reshape(-1).add_(1)
    return out


@pytest.mark.parametrize(
    ("kernel", "acts"),
    [(drawing, True), (on_its_input, True), (on_its_own, False), (below, False)],
)
def test_what_a_kernel_does_to_its_own_result_stays_inside(
    lib: Library, kernel: Fn, acts: bool
) -> None:
    """S198: only what others see keeps a call; a new kernel is judged anew."""
    lib.impl("f", kernel, "AutogradCPU", with_keyset=True)
    make_fx(FUNCTIONS["value"], "symbolic")(polyop.ones(2))
    assert is_impure(op()) is acts
    lib.impl("f", below, "AutogradCPU", with_keyset=True)
    assert not is_impure(op())
