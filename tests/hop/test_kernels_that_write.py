"""Kernels of authors that write what their schema does not say, in bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.dispatch.keyset import after_autograd_keys
from polyop.dispatch.library import Library
from polyop.errors import SubgraphError
from polyop.graph import make_fx
from polyop.hop import checkpoint, cond, wrap


@pytest.fixture
def op() -> Iterator[Any]:
    """Give an operator whose kernel at an autograd key adds one to its argument."""
    lib = Library("kernels_that_write", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    found = polyop.ops.kernels_that_write.f.default
    lib.impl("f", lambda x: polyop.tensor(x.numpy() ** 2), "CPU")
    polyop.library.register_fake("kernels_that_write::f", lambda x: x.new_empty(x.shape), lib=lib)

    def kernel(keys: Any, x: Tensor) -> Any:
        out = found.redispatch(keys & after_autograd_keys, x)
        x.add_(1)
        return out

    lib.impl("f", kernel, "AutogradCPU", with_keyset=True)
    yield found
    lib.destroy()


BODIES: dict[str, Callable[[Any, Tensor], Any]] = {
    "cond": lambda op, x: cond(x.sum() > 0, lambda y: op(y) + 1, lambda y: y * 1, (x,)),
    "checkpoint": lambda op, x: checkpoint(lambda y: op(y) + 1, x),
    "wrap": lambda op, x: wrap(lambda y: op(y) + 1, x),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_error_names_the_kernel(op: Any, body: Any) -> None:
    """S181: the body does write its input, and who reads it does not see how."""
    with pytest.raises(SubgraphError) as caught:
        make_fx(lambda x: body(op, x))(polyop.ones(2))
    text = str(caught.value)
    assert "a kernel of kernels_that_write::f does, and its schema does not say so" in text
    assert "let the kernel write to a clone" in text


def test_a_write_of_the_body_itself_is_told_as_before() -> None:
    """S181: nobody else is named."""
    with pytest.raises(SubgraphError, match="writes its input 'y'\n") as caught:
        make_fx(lambda x: wrap(lambda y: y.add_(1) + 1, x))(polyop.ones(2))
    assert "without the underscore" in str(caught.value)
