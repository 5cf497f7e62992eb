"""A fallthrough at an autograd key: no gradient is recorded, in any mode; writes are seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop
from polyop import func, ops
from polyop.dispatch.library import Library
from polyop.export import export
from polyop.extend import DispatchKeySet
from polyop.library import fallthrough_kernel, register_autograd, register_jvp

torch = pytest.importorskip("torch")

X = polyop.ones(2, requires_grad=True)
#: What is registered, in this order; "|" stands before what another library registers.
ORDERS = (
    "formula", "formula through", "through formula", "formula | through", "through | formula",
    "through_cpu formula", "formula through_cpu", "through", "through formula through",
)  # fmt: skip


def register(xp: Any, order: str) -> tuple[Any, list[Any]]:
    """Define an operator in a library, and register in order; give it and the libraries."""
    name = f"passing_{xp.__name__}"
    libs = [xp.library.Library(name, "FRAGMENT")]
    libs[0].define("f(Tensor x) -> Tensor")
    libs[0].impl("f", lambda x: xp.from_numpy(x.detach().numpy() * 2), "CPU")
    for step in order.split():
        lib = libs[-1]
        if step == "|":
            libs.append(xp.library.Library(name, "FRAGMENT"))
        elif step == "formula":
            xp.library.register_autograd(f"{name}::f", lambda ctx, g: g * 7, lib=lib)
        else:
            key = "AutogradCPU" if step == "through_cpu" else "Autograd"
            lib.impl("f", xp.library.fallthrough_kernel, key, allow_override=True)
    return getattr(xp.ops, name).f, libs


def eager(xp: Any, f: Any) -> Any:
    """Give the gradient of an eager call; zeros, where the result does not require grad."""
    x = xp.ones(2, requires_grad=True)
    y = f(x)
    return xp.autograd.grad(y.sum(), x)[0].tolist() if y.requires_grad else [0.0, 0.0]


def transformed(f: Any) -> list[Any]:
    """Give the gradient, and the tangent, that transforms find."""
    one = polyop.ones(2)
    summed = lambda x: f(x).sum()  # noqa: E731
    return [
        func.grad(summed)(one).tolist(),
        func.vjp(f, one)[1](one)[0].tolist(),
        polyop.vmap(func.grad(summed))(polyop.ones(3, 2))[0].tolist(),
        func.jvp(f, (one,), (one,))[1].tolist(),
        func.linearize(f, one)[1](one).tolist(),
    ]


def end(xp: Any, libs: list[Any]) -> None:
    """Take all registrations back."""
    for lib in reversed(libs):
        lib.destroy() if xp is polyop else lib._destroy()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("order", ORDERS)
def test_the_newer_of_formula_and_fallthrough_acts(order: str) -> None:
    """S37, S93, S134: as PyTorch has it, and the same in each mode."""
    found = []
    for xp in (torch, polyop):
        f, libs = register(xp, order)
        found.append(eager(xp, f))
        if xp is polyop:
            assert transformed(f) == [found[0]] * 5
        end(xp, libs)
    assert found[0] == found[1]


def test_what_is_taken_back_brings_back_what_was_there() -> None:
    """S106: without the newer one, the older one acts again."""
    f, libs = register(polyop, "through | formula")
    assert transformed(f) == [eager(polyop, f)] * 5 == [[7.0, 7.0]] * 5
    libs.pop().destroy()
    assert transformed(f) == [eager(polyop, f)] * 5 == [[0.0, 0.0]] * 5
    end(polyop, libs)


def test_a_newer_jvp_acts_too() -> None:
    """S132: a tangent is never silently zero."""
    f, libs = register(polyop, "through")
    register_jvp("passing_polyop::f", lambda ctx, t: t * 5, lib=libs[0])
    one = polyop.ones(2)
    assert func.jvp(f, (one,), (one,))[1].tolist() == [5.0, 5.0]
    with pytest.raises(polyop.errors.MissingGradientError):
        func.grad(lambda x: f(x).sum())(one)
    end(polyop, libs)


def test_a_newer_formula_acts_instead_of_a_kernel() -> None:
    """S37: an older kernel at `Autograd` rests, and comes back."""
    f, libs = register(polyop, "")
    below = DispatchKeySet("CPU")
    libs[0].impl("f", lambda x: f.default.redispatch(below, x) * 3, "Autograd")
    libs.append(Library("passing_polyop", "FRAGMENT"))
    register_autograd("passing_polyop::f", lambda ctx, g: g * 7, lib=libs[1])
    assert f(polyop.ones(2)).tolist() == [2.0, 2.0]
    assert transformed(f) == [eager(polyop, f)] * 5 == [[7.0, 7.0]] * 5
    libs.pop().destroy()
    assert f(polyop.ones(2)).tolist() == [6.0, 6.0]
    end(polyop, libs)


@pytest.mark.parametrize("trace", [polyop.compile, lambda f: f], ids=["compile", "eager"])
def test_a_compiled_call_is_not_recorded_either(trace: Any) -> None:
    """S93, S211."""
    f, libs = register(polyop, "formula through")
    polyop.library.register_fake("passing_polyop::f", lambda x: x.new_empty(x.shape), lib=libs[0])
    x = polyop.ones(2, requires_grad=True)
    y = trace(lambda x: (f(x) * x).sum())(x)
    assert polyop.autograd.grad(y, x)[0].tolist() == [2.0, 2.0]
    end(polyop, libs)


@pytest.fixture
def writer() -> Any:
    """An operator that writes, with a fallthrough at `Autograd`."""
    lib = Library("passing", "DEF")
    lib.define("double_(Tensor(a!) x) -> ()")

    def double(x: Any) -> None:
        x.numpy()[...] *= 2

    lib.impl("double_", double, "CPU")
    lib.impl("double_", fallthrough_kernel, "Autograd")
    yield ops.passing.double_
    lib.destroy()


def test_a_write_to_a_leaf_is_refused_all_the_same(writer: Any) -> None:
    """S135: before the kernel runs."""
    x = polyop.ones(2, requires_grad=True)
    for tensor in (x, x[:1]):
        with pytest.raises(polyop.errors.MutationError, match="leaf that requires grad"):
            writer(tensor)
    assert x.tolist() == [1.0, 1.0]
    with polyop.no_grad():
        writer(x)
    assert x.tolist() == [2.0, 2.0]


def test_a_gradient_through_such_a_write_is_refused(writer: Any) -> None:
    """S129: it is not the gradient of the former value."""
    x = polyop.ones(2, requires_grad=True)
    y = x * 3
    writer(y)
    assert np.allclose(y.detach().numpy(), 6)
    with pytest.raises(polyop.errors.MissingGradientError):
        y.sum().backward()
    written = lambda x: (y := x * 3, writer(y), y.sum())[2]  # noqa: E731
    with pytest.raises(polyop.errors.AutogradError):
        func.grad(written)(polyop.ones(2))


@pytest.mark.parametrize("capture", [polyop.compile, lambda f: export(f, (X,)).module()])
def test_a_composition_that_autograd_does_not_see(capture: Any) -> None:
    """S93, S209: programs have the call whole, and no gradient of what it is made of."""
    lib = Library("passing_composed", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", lambda x: x * 2, "CompositeImplicitAutograd")
    lib.impl("f", fallthrough_kernel, "AutogradCPU")
    for run in (ops.passing_composed.f, capture(ops.passing_composed.f)):
        y = run(X)
        assert (y.tolist(), y.requires_grad) == ([2.0, 2.0], False)
    lib.destroy()
