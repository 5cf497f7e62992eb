"""Kernels of authors that go on at a backend, inside of transforms that are traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.dispatch.keyset import after_autograd_keys
from polyop.dispatch.library import Library
from polyop.errors import CaptureError
from polyop.extend import DispatchKeySet
from polyop.graph import make_fx

Fn = Callable[..., Any]
TRACES: dict[str, Callable[[Fn, Tensor], Any]] = {
    "real": lambda f, x: make_fx(f)(x),
    "symbolic": lambda f, x: make_fx(f, "symbolic")(x),
    "before dispatch": lambda f, x: make_fx(f, pre_dispatch=True)(x),
    "compile": lambda f, _: polyop.compile(f),
    "export": lambda f, x: polyop.export.export(f, (x,)).module(),
}
TRACED = pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)


@pytest.fixture(params=["Autograd", "AutogradCPU"])
def lib(request: Any) -> Iterator[Library]:
    """A library with an operator that squares, and a kernel that doubles it."""
    made = Library("past_levels", "DEF")
    made.define("f(Tensor x) -> Tensor")
    made.define("add_(Tensor(a!) x) -> Tensor(a!)")
    made.impl("f", lambda x: polyop.tensor(x.numpy() ** 2), "CPU")
    made.impl("add_", lambda x: x.add_(1), "CPU")
    polyop.library.register_fake("past_levels::f", lambda x: x.new_empty(x.shape), lib=made)
    backend = DispatchKeySet("CPU")
    made.impl("f", lambda x: op().redispatch(backend, x) * 2, request.param)
    add_ = polyop.ops.past_levels.add_.default
    made.impl("add_", lambda x: add_.redispatch(backend, x), request.param)
    yield made
    made.destroy()


def op() -> Any:
    return polyop.ops.past_levels.f.default


def f(x: Tensor) -> Any:
    return op()(x) * x


def twice(x: Tensor) -> Any:
    return polyop.func.grad(lambda x: (polyop.func.grad(lambda y: f(y).sum())(x) * x).sum())(x)


def written(x: Tensor) -> Any:
    y = x * 3
    return polyop.func.grad(lambda x: (polyop.ops.past_levels.add_(x * y) * x).sum())(x)


FUNCTIONS: dict[str, Fn] = {
    "grad": polyop.func.grad(lambda x: f(x).sum()),
    "grad of grad": twice,
    "vjp": lambda x: polyop.func.vjp(f, x)[1](x),
    "jacrev": polyop.func.jacrev(f),
    "grad and value": polyop.func.grad_and_value(lambda x: f(x).sum()),
}


@TRACED
@pytest.mark.parametrize("fn", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.usefixtures("lib")
def test_a_program_does_what_the_call_does(fn: Fn, trace: Any) -> None:
    """S103, S209: no level acts on such a call, in a program as in an eager call."""
    x = polyop.tensor([1.0, 2.0])
    found, wanted = trace(fn, polyop.ones(2))(x), fn(x)
    assert str(found) == str(wanted)


@TRACED
def test_what_a_backend_kernel_computes_by_operators(lib: Library, trace: Any) -> None:
    """S103: neither has a gradient, as a plain call has none."""
    lib.impl("f", lambda x: x * x, "CPU")
    fn = FUNCTIONS["grad"]
    x = polyop.tensor([1.0, 2.0])
    assert trace(fn, polyop.ones(2))(x).tolist() == fn(x).tolist() == [2, 8]


@pytest.mark.parametrize("keys", [DispatchKeySet("CPU"), after_autograd_keys])
@TRACED
@pytest.mark.usefixtures("lib")
def test_a_function_that_names_keys_itself(keys: DispatchKeySet, trace: Any) -> None:
    """S103, S209: no transform is needed for it: the call is recorded, and not what it gave."""

    def fn(x: Tensor) -> Any:
        with polyop.no_grad():
            return op().redispatch(keys & DispatchKeySet("CPU"), x) + x

    x = polyop.tensor([1.0, 2.0])
    assert trace(fn, polyop.ones(2))(x).tolist() == fn(x).tolist() == [2, 6]


@pytest.mark.parametrize("trace", [TRACES["real"], TRACES["symbolic"], TRACES["before dispatch"]])
@pytest.mark.usefixtures("lib")
def test_a_tangent_that_would_be_lost_is_refused(trace: Any) -> None:
    """S132: a tangent is never silently zero, and the text says what to do."""

    def pushed(x: Tensor) -> Any:
        return polyop.func.jvp(f, (x,), (x,))[1]

    with pytest.raises(CaptureError, match=r"at a backend, past func\.jvp.*the tangent") as caught:
        trace(pushed, polyop.ones(2))
    assert "after_autograd_keys" in str(caught.value)


@pytest.mark.parametrize("trace", [TRACES["real"], TRACES["compile"]])
@pytest.mark.usefixtures("lib")
def test_a_write_gives_the_tensor_that_it_was_given(trace: Any) -> None:
    """S209: a result that is an argument is that of the level."""
    x = polyop.tensor([1.0, 2.0])
    assert trace(written, polyop.ones(2))(x).tolist() == written(x).tolist()
