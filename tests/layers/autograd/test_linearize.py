"""`func.linearize` is `func.jvp`: through grad modes, writes, and operators that take functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.layers.author_signatures import same

import polyop
from polyop import Tensor, autograd, func, hop
from polyop.errors import AutogradError, MissingGradientError

#: PyTorch's own jvp brings in what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
Fn = Callable[[Tensor], Tensor]
X, V = polyop.tensor([1.0, 2.0]), polyop.tensor([0.5, -1.0])


class Squared(autograd.Function):
    """A square without a `jvp`."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Square."""
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the argument."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Give the gradient."""
        return g * 2 * ctx.saved_tensors[0]


def written(x: Tensor) -> Tensor:
    """Write a view, and its base."""
    y = x * 1
    y[:1].mul_(x[1:])
    return y.mul_(2)


def written_from_outside(x: Tensor) -> Tensor:
    """Write what has no derivative until then."""
    y = polyop.zeros(2)
    y[0] = x[1]
    return y.mul_(x)


class Cubed(autograd.Function):
    """A cube with a `jvp` alone."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Cube."""
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the argument."""
        ctx.x = inputs[0]

    @staticmethod
    def jvp(ctx: Any, d: Tensor) -> Tensor:
        """Give the tangent."""
        return d * 3 * ctx.x * ctx.x


HIDDEN: dict[str, Fn] = {
    "operators": lambda x: x * x,
    "writes": written,
    "writes from outside": written_from_outside,
    "Function": Squared.apply,
    "grad": func.grad(lambda x: (x**3).sum()),
    "linearize": lambda x: func.linearize(lambda y: y * y * x, x)[1](x),
    "cond": lambda x: polyop.cond(True, lambda x: x * x, lambda x: x, (x,)),
    "vmap": func.vmap(lambda x: x * x),
    "detach": lambda x: x.detach() * x,
}


@pytest.mark.parametrize("mode", [polyop.no_grad, polyop.inference_mode])
@pytest.mark.parametrize("name", HIDDEN)
def test_grad_mode_says_nothing_to_forward_mode(name: str, mode: Any) -> None:
    """S134: what runs where nothing is recorded has a tangent all the same."""

    def f(x: Tensor) -> Tensor:
        with mode():
            z = HIDDEN[name](x)
        return z * x

    out, push = func.linearize(f, X)
    same((out, push(V)), func.jvp(f, (X,), (V,)))
    second = func.jvp(lambda x: func.jvp(f, (x,), (V,))[1], (X,), (V,))[1]
    same(func.linearize(lambda x: func.linearize(f, x)[1](V), X)[1](V), second)


def test_no_grad_inside_as_pytorchs() -> None:
    """S134: the derivative through `no_grad` is PyTorch's."""

    def f(x: Any, no_grad: Any) -> Any:
        with no_grad():
            z = x * x
        return z * x

    push = func.linearize(lambda x: f(x, polyop.no_grad), X)[1]
    x, v = torch.tensor(X.numpy()), torch.tensor(V.numpy())
    wanted = torch.func.jvp(lambda x: f(x, torch.no_grad), (x,), (v,))[1]
    np.testing.assert_allclose(push(V).numpy(), wanted.numpy())


def test_a_gradient_around_sees_no_grad() -> None:
    """S134: only the derivative itself records there; levels around it do as the mode says."""

    def f(x: Tensor) -> Tensor:
        with polyop.no_grad():
            z = written(x)
        return z * x

    around = func.grad(lambda x: func.linearize(f, x)[0].sum())
    same(around(X), func.grad(lambda x: f(x).sum())(X))


CALLS: dict[str, Fn] = {
    "checkpoint": lambda x: hop.checkpoint(polyop.sin, x),
    "map": lambda x: polyop.map(polyop.sin, x),
    "cond": lambda x: polyop.cond(True, polyop.sin, lambda x: x, (x,)),
    "scan": lambda x: polyop.scan(lambda c, a: (c * a, c + a), x[0], x)[1],
    "wrap": lambda x: hop.wrap(polyop.sin, x),
}


@pytest.mark.parametrize("name", CALLS)
def test_operators_that_take_functions_are_made_linear(name: str) -> None:
    """S134, S179: each is recorded to be transposed as it is for a gradient."""
    f = CALLS[name]
    same(func.linearize(f, X)[1](V), func.jvp(f, (X,), (V,))[1])
    rows = polyop.stack([X, V])
    by_rows = lambda x: func.vmap(f)(rows * x)  # noqa: E731
    same(func.linearize(by_rows, X)[1](V), func.jvp(by_rows, (X,), (V,))[1])


DOUBLES: dict[str, Fn] = {
    "checkpoint": lambda g: hop.checkpoint(lambda g: g * 2, g),
    "map": lambda g: polyop.map(lambda g: g * 2, g),
    "cond": lambda g: polyop.cond(True, lambda g: g * 2, lambda g: g, (g,)),
    "scan": lambda g: polyop.scan(lambda c, a: (c, a * 2), polyop.zeros(()), g)[1],
    "wrap": lambda g: hop.wrap(lambda g: g * 2, g),
}


@pytest.mark.parametrize("name", DOUBLES)
def test_gradients_with_operators_that_take_functions_are_transposed(name: str) -> None:
    """S132, S179: a backward may call them, and forward mode goes the other way through it."""

    class Doubled(autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return DOUBLES[name](g)

    same(func.jvp(Doubled.apply, (X,), (V,)), (X * 2, V * 2))


@pytest.mark.parametrize("apply", [Cubed.apply, Squared.apply])
def test_the_function_runs_once(apply: Fn) -> None:
    """S134: what it writes is written once, what it draws is drawn once, whatever its rules."""
    counts, runs = polyop.ones(2), []

    def f(x: Tensor) -> Tensor:
        counts.mul_(2)
        runs.append(x)
        return apply(x + polyop.rand(2)) * counts.clone()

    polyop.manual_seed(0)
    wanted = func.jvp(f, (X,), (V,))
    counts.fill_(1)
    polyop.manual_seed(0)
    out, push = func.linearize(f, X)
    same((out, push(V)), wanted)
    same(push(V), wanted[1])
    assert counts.tolist() == [2, 2]
    assert len(runs) == 2


def test_a_jvp_alone_is_differentiated_again() -> None:
    """S132, S134: levels around see what was recorded of a rule without backward."""
    slope = lambda x: func.linearize(Cubed.apply, x)[1](V)  # noqa: E731
    same(func.linearize(slope, X)[1](V), 6 * X * V * V)
    same(func.jvp(slope, (X,), (V,))[1], 6 * X * V * V)
    same(func.grad(lambda x: slope(x).sum())(X), 6 * X * V)


def with_jvp(jvp: Callable[[Any, Tensor], Tensor]) -> Fn:
    """Give `Cubed` with another rule."""
    apply: Fn = type("Other", (Cubed,), {"jvp": staticmethod(jvp)}).apply
    return apply


def test_a_jvp_that_looks_at_its_tangent_is_refused() -> None:
    """S134: what it computes from the data would be lost; `detach` hides nothing."""
    read = with_jvp(lambda ctx, d: polyop.asarray(d.numpy(force=True)) * 3)
    same(func.jvp(read, (X,), (V,))[1], V * 3)
    with pytest.raises(MissingGradientError, match="a jvp looks at the data"):
        func.linearize(read, X)
    hidden = with_jvp(lambda ctx, d: d.detach() * 3)
    same(func.linearize(hidden, X)[1](V), V * 3)


def test_a_write_after_the_run_is_refused() -> None:
    """S134: the derivative is that of the run, or none."""
    scale = polyop.ones(2)
    push = func.linearize(lambda x: Cubed.apply(x) * scale, X)[1]
    scale.mul_(2)
    with pytest.raises(AutogradError, match="was written after it was saved"):
        push(V)


def _sine(x: Tensor) -> Tensor:
    return x.sin() * x


def _half_recorded(x: Tensor) -> Tensor:
    with polyop.no_grad():
        y = x * x
    return y * x


HOPS: dict[str, Fn] = {
    "checkpoint_no_grad": lambda x: hop.checkpoint(_half_recorded, x),
    "checkpoint": lambda x: hop.checkpoint(_sine, x),
    "wrap": lambda x: hop.wrap(_sine, x),
    "map": lambda x: polyop.map(_sine, x),
    "scan": lambda x: polyop.scan(lambda c, s: (c * s.sin(), c + s), x[0], x)[1],
    "while_loop": lambda x: polyop.while_loop(lambda v: v.sum() < 5, lambda v: (v * v + 1,), (x,))[
        0
    ],
}
AROUND: dict[str, Callable[[Fn], Fn]] = {
    "alone": lambda fn: fn,
    "again": lambda fn: lambda x: fn(fn(x) * x) + x,
    "asked": lambda fn: lambda x: fn(x) * (2 if fn(x).sum() > 0 else 3),
    "pushed": lambda fn: lambda x: func.jvp(fn, (x,), (x,))[1],
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", HOPS)
def test_values_of_operators_that_take_functions(name: str, around: str) -> None:
    """S134: they are computed beside tangents, and are values all the same."""
    fn = AROUND[around](HOPS[name])
    result, push = func.linearize(fn, X)
    wanted, tangent = func.jvp(fn, (X,), (V,))
    np.testing.assert_allclose(result.numpy(), wanted.numpy())
    np.testing.assert_allclose(push(V).numpy(), tangent.numpy(), rtol=1e-6)
    np.testing.assert_allclose(push(V * 2).numpy(), 2 * tangent.numpy(), rtol=1e-6)
