"""Functionalized calls run what plain calls run: a kernel, or what the operator is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import func
from polyop.dispatch.library import Library
from polyop.errors import MissingKernelError
from polyop.library import fallthrough_kernel

NS = "kernelsfirst"


@pytest.fixture
def lib() -> Iterator[Library]:
    """A library of a test's own."""
    made = Library(NS, "DEF")
    yield made
    made.destroy()


def both(lib: Library, schema: str, fast: Callable[..., Any], composed: Callable[..., Any]) -> Any:
    """Define an operator with a kernel and a composition; give it, and a list of which ran."""
    ran: list[str] = []
    name = lib.define(schema).partition("(")[0].rpartition("::")[2]
    lib.impl(name, lambda *args: (ran.append("kernel"), fast(*args))[1], "CPU")
    lib.impl(name, lambda *a: (ran.append("composition"), composed(*a))[1],
             "CompositeImplicitAutograd")  # fmt: skip
    return getattr(getattr(polyop.ops, NS), name), ran


def test_a_kernel_goes_before_the_composition(lib: Library) -> None:
    """S86, S168: with a functional call, and with one that writes."""
    sine, ran = both(lib, "s(Tensor x) -> Tensor", lambda x: polyop.from_numpy(np.sin(x.numpy())),
                     lambda x: x.sin())  # fmt: skip
    x = polyop.ones(2)
    assert func.functionalize(sine)(x).tolist() == sine(x).tolist()
    assert ran == ["kernel", "kernel"]

    def fast(x: Any) -> None:
        x.numpy()[...] += 1

    add_, wrote = both(lib, "a_(Tensor(a!) x) -> ()", fast, lambda x: (x.add_(1.0), None)[1])
    written = func.functionalize(lambda x: (add_(x), x * 1)[1])(x)
    assert written.tolist() == x.tolist() == [2.0, 2.0]
    assert wrote == ["kernel"]


def test_without_tensors_the_composition_acts(lib: Library) -> None:
    """S86, S90: no backend has a kernel for such a call."""
    make, ran = both(lib, "z(int n) -> Tensor", polyop.zeros, polyop.zeros)
    assert func.functionalize(lambda x: make(2) + x)(polyop.ones(2)).tolist() == [1.0, 1.0]
    assert ran == ["composition"]


def test_a_write_through_a_view_follows_what_it_is_made_of(lib: Library) -> None:
    """S168: values equal those of the function."""
    first, _ = both(lib, "v(Tensor(a) x) -> Tensor(a)", lambda x: x[0], lambda x: x[0])

    def f(x: Any) -> Any:
        y = x * 1
        first(y).add_(5.0)
        return y

    assert func.functionalize(f)(polyop.ones(2)).tolist() == f(polyop.ones(2)).tolist()


TRANSFORMS = {
    "functionalize": lambda f: func.functionalize(f)(polyop.ones(3, 2)),
    "vmap": lambda f: polyop.vmap(f)(polyop.ones(3, 2)),
    "vmap of functionalize": lambda f: polyop.vmap(func.functionalize(f))(polyop.ones(3, 2)),
    "eager": lambda f: f(polyop.ones(3, 2)),
}


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
@pytest.mark.parametrize("call", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_fallthrough_is_no_composition(lib: Library, call: Callable[..., Any]) -> None:
    """S61, S93: transforms run what eager runs, or say what is missing."""
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", fallthrough_kernel, "CompositeImplicitAutograd")
    op = getattr(polyop.ops, NS).f
    assert not op.default._can_decompose()
    assert op.default.decompose(polyop.ones(2)) is NotImplemented
    with pytest.raises(MissingKernelError):
        call(op)
    lib.impl("f", lambda x: x * 2, "CPU")
    assert call(op).tolist() == [[2.0, 2.0]] * 3
