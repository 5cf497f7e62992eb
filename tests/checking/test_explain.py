"""`explain` says what a call will do: the kernel that it names is the one that runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop.errors import ArgumentError, MissingKernelError
from polyop.fake import FakeTensorMode
from polyop.library import Library, register_kernel, scoped_library

jnp = pytest.importorskip("jax.numpy")


@pytest.fixture
def lib() -> Iterator[Library]:
    with scoped_library("explained", "FRAGMENT") as made:
        yield made


def define(lib: Library) -> tuple[Any, list[Any]]:
    """Define an operator with many kernels, each of which says that it runs."""
    lib.define("f(Tensor x) -> Tensor")
    op, ran = polyop.ops.explained.f.default, []

    def register(devices: Any, library: str | None = None) -> None:
        def kernel(x: Any) -> Any:
            ran.append(kernel)
            return x * 2

        register_kernel(op, devices, kernel, lib=lib, library=library)

    register(None)
    register("cpu")
    register(None, "torch")
    register("cuda", "torch")
    register("cpu", "jax")
    polyop.library.register_fake(op, lambda x: polyop.empty_like(x), lib=lib)
    return op, ran


ARRAYS = {
    "numpy": lambda: np.ones(2),
    "tensor": lambda: polyop.ones(2),
    "torch": lambda: torch.ones(2),
    "jax": lambda: jnp.ones(2),
    "torch tensor": lambda: polyop.from_array(torch.ones(2)),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_the_kernel_that_is_named_runs(kind: str, lib: Library) -> None:
    """S85: explaining runs nothing, and names the kernel that then runs, whatever the arrays."""
    op, ran = define(lib)
    told = op.explain(ARRAYS[kind]())
    assert not ran
    op(ARRAYS[kind]())
    assert [told.kernel] == ran
    assert told.library == ("torch" if "torch" in kind else "jax" if kind == "jax" else "numpy")
    assert told.device == "cpu"


def test_the_text_says_why(lib: Library) -> None:
    """S85: the text has arguments, kernel and place, the reason, and who was passed over."""
    op, _ = define(lib)
    text = str(op.explain(torch.ones(2)))
    assert "called with: x: torch float32[2] on cpu" in text
    assert "kernel at " in text and "test_explain.py:" in text
    assert "registered for arrays of torch on any device" in text
    assert "library torch, cuda at" in text and "the arrays are on cpu" in text
    assert "library jax, cpu at" in text and "the arrays are torch's" in text
    text = str(op.explain(np.ones(2)))
    assert "a kernel is registered for CPU; none of the kernels for one library" in text
    assert "CompositeExplicitAutograd at" in text and "a more specific one is there" in text


def test_conversions_are_named(lib: Library) -> None:
    """S85: where NumPy's kernel serves another library, the conversions are said."""
    lib.define("g(Tensor x, Tensor[] ys) -> Tensor")
    op = polyop.ops.explained.g.default
    register_kernel(op, None, lambda x, ys: x + ys[0], lib=lib)
    told = op.explain(torch.ones(1), [torch.ones(1), np.ones(1)])
    assert told.conversions == (
        "x: torch to numpy, memory is shared",
        "ys: torch to numpy, memory is shared",
        "results: numpy to torch, memory is shared",
    )
    assert op.explain(jnp.ones(1), [jnp.ones(1)]).conversions[0] == "x: jax to numpy, read-only"
    assert op.explain(np.ones(1), [np.ones(1)]).conversions == ()
    assert "no kernel is registered for CPU, and CompositeExplicitAutograd serves" in str(told)


def test_layers_that_act_are_named(lib: Library) -> None:
    """S99: autograd, modes, fakes and transforms are told, in the order in which they act."""
    op, _ = define(lib)
    x = polyop.ones(2, requires_grad=True)
    assert op.explain(x).layers == ("AutogradCPU: autograd records the call",)
    with FakeTensorMode():
        told = op.explain(polyop.ones(2))
        assert told.kernel is None and "no kernel runs" in str(told)
    seen: list[Any] = []

    def f(t: Any) -> Any:
        seen.append(op.explain(t))
        return t

    polyop.vmap(f)(polyop.ones((2, 3)))
    assert seen[0].kernel is None and "a transform" in seen[0].layers[0]
    assert "its own operator explained::f is called" in op.explain(torch.ones(1)).layers[0]


def test_a_call_that_nobody_serves(lib: Library) -> None:
    """S90: what a call would raise is said instead of a kernel."""
    lib.define("none(Tensor x) -> Tensor")
    op = polyop.ops.explained.none
    told = op.explain(polyop.ones(1))
    with pytest.raises(MissingKernelError) as caught:
        op(polyop.ones(1))
    assert told.kernel is None and told.problem == caught.value.problem
    assert f"raises:      {told.problem}" in str(told)


def test_every_form_of_an_operator() -> None:
    """S85: built-in operators too, over each library; arguments are bound as in a call."""
    told = polyop.ops.core.sin.explain(torch.ones(2))
    assert "over torch it goes the way 'native'" in str(told)
    assert polyop.library.explain("core::sin", polyop.ones(2)).kernel is not None
    with pytest.raises(ArgumentError):
        polyop.ops.core.sin.explain(polyop.ones(2), 3)
