"""What kernels above the backends give back is checked as every kernel's results are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.dispatch.guards import include_keys
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import Library
from polyop.errors import AliasError, ReturnError
from polyop.layers.trace.make_fx import make_fx
from polyop.tensor.tensor import Tensor, of_array

#: An operator without a batching rule says so, once; that is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")


@pytest.fixture(name="lib")
def _lib() -> Iterator[Library]:
    lib = Library("hostile_results", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    yield lib
    lib.destroy()


def f(x: Any) -> Any:
    return polyop.ops.hostile_results.f(x)


def x(*, grad: bool = False) -> Tensor:
    made = of_array(np.array([1.0, 2.0]))
    return made.requires_grad_() if grad else made


#: The ways of a call on which a kernel at an autograd or composite key acts.
WAYS: dict[str, Callable[[], Any]] = {
    "plain": lambda: f(x()),
    "grad mode": lambda: f(x(grad=True)),
    "vmap": lambda: polyop.vmap(f)(of_array(np.ones((2, 2)))),
    "func.grad": lambda: polyop.func.grad(lambda a: f(a).sum())(x()),
    "make_fx": lambda: make_fx(f)(x())(x()),
}
KEYS = ["CompositeImplicitAutograd", "Autograd", "AutogradCPU", "BackendSelect"]
WRONG: dict[str, Any] = {
    "None": None, "int": 3, "tuple": (of_array(np.ones(2)),), "list": [], "array": np.ones(2),
}  # fmt: skip
SHARED: dict[str, Callable[[Any], Any]] = {
    "itself": lambda a: a,
    "a view": lambda a: a[:],
    "detached": lambda a: a.detach(),
    "reshaped": lambda a: a.reshape((2, 1)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wrong", WRONG)
def test_types_at_every_key(lib: Library, key: str, wrong: str, way: str) -> None:
    """S48: the number and types of results are checked whatever key the kernel is registered at,
    and whether or not gradients, batches or traces are wanted."""
    lib.impl("f", lambda a: WRONG[wrong], key)
    if not key.startswith("Composite"):
        lib.impl("f", lambda a: a * 2, "CPU")
    with pytest.raises(ReturnError, match=r"hostile_results::f returned a wrong type"):
        WAYS[way]()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("shared", SHARED)
def test_sharing_at_every_key(lib: Library, key: str, shared: str, way: str) -> None:
    """S47: undeclared sharing with an argument is an error also where the tensors have a history,
    or are wrapped by a transform."""
    lib.impl("f", SHARED[shared], key)
    if not key.startswith("Composite"):
        lib.impl("f", lambda a: a * 2, "CPU")
    with pytest.raises(AliasError, match="shares storage with argument 'x'"):
        WAYS[way]()


@pytest.mark.parametrize("key", ["FuncTorchBatched", "FuncTorchVmapMode"])
@pytest.mark.parametrize("wrong", [*WRONG, *SHARED])
def test_kernels_of_vmap(lib: Library, key: str, wrong: str) -> None:
    """S47, S48: the results of kernels at the keys of vmap are checked."""
    lib.impl("f", SHARED.get(wrong, lambda a: WRONG.get(wrong)), key)
    with pytest.raises((AliasError, ReturnError)):
        WAYS["vmap"]()


def test_right_results_keep_their_history(lib: Library) -> None:
    """S47, S48, S130: what is right passes, with its gradient."""
    lib.impl("f", lambda a: a * a, "CompositeImplicitAutograd")
    t = x(grad=True)
    f(t).sum().backward()
    assert t.grad is not None and t.grad.tolist() == [2, 4]
    for way in WAYS.values():
        way()


def test_a_view_may_be_declared(lib: Library) -> None:
    """S47: declared sharing passes at composite keys, and its gradient is seen through it."""
    lib.define("view(Tensor(a) x) -> Tensor(a)")
    lib.impl("view", lambda a: a[:1], "CompositeImplicitAutograd")
    t = x(grad=True)
    polyop.ops.hostile_results.view(t).sum().backward()
    assert t.grad is not None and t.grad.tolist() == [1, 0]


@pytest.mark.parametrize("way", ["func.grad", "vmap of grad", "grad of grad", "traced grad"])
def test_composites_are_differentiated_through(lib: Library, way: str) -> None:
    """S130: a composite kernel needs no gradient of its own, under no transform."""
    lib.impl("f", lambda a: a * a * a, "CompositeImplicitAutograd")
    grad = polyop.func.grad(lambda a: f(a).sum())
    second = polyop.func.grad(lambda a: grad(a).sum())
    found = {
        "func.grad": lambda: grad(x()),
        "vmap of grad": lambda: polyop.vmap(grad)(x()),
        "grad of grad": lambda: second(x()),
        "traced grad": lambda: make_fx(grad)(x())(x()),
    }[way]()
    assert found.tolist() == ([6, 12] if way == "grad of grad" else [3, 12])


def test_a_backend_kernel_beside_a_composite(lib: Library) -> None:
    """S86, S89: with a kernel for the CPU the composite serves no gradient there, also under
    `func.grad`."""
    lib.impl("f", lambda a: a * a, "CompositeImplicitAutograd")
    lib.impl("f", lambda a: of_array(a.numpy() ** 2), "CPU")
    for way in ("grad mode", "func.grad"):
        with pytest.raises(polyop.errors.MissingGradientError):
            result = WAYS[way]()
            result.sum().backward()


@pytest.mark.parametrize("key", ["FPGA", "QuantizedCPU", "SparseCsrCPU"])
def test_built_in_kernels_serve_other_keys(key: str) -> None:
    """S81: a built-in kernel for all backends gets bare arrays at every key that it serves."""
    with include_keys([DispatchKey[key]]):
        assert (x() * 2).tolist() == [2, 4]


def test_a_fallback_answers_with_the_right_type() -> None:
    """S48, S102: what a fallback for all operators gives back is of the declared type."""
    every = Library("_", "IMPL")
    every.fallback(lambda op, *args, **kwargs: None, "AutogradCPU")
    try:
        with pytest.raises(ReturnError, match="answer to core::sin"):
            polyop.sin(x(grad=True))
    finally:
        every.destroy()
    assert polyop.sin(x(grad=True)).requires_grad
