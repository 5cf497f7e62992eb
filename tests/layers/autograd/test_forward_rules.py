"""Authors' rules in forward mode: `jvp`, transposed backwards, and `Function`."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import numpy as np
import pytest

from polyop.dispatch.custom_op import custom_op
from polyop.errors import (
    AutogradError,
    MissingGradientError,
)
from polyop.func import grad, jacfwd, jvp, linearize
from polyop.layers.autograd import Function
from polyop.layers.autograd.recorders import set_autograd_fallback
from polyop.layers.vmap import vmap
from polyop.tensor.tensor import Tensor, of_array

NUMBERS = count()
X, T = np.array([0.3, 0.7, -0.2]), np.array([1.0, 2.0, 3.0])


@pytest.fixture
def sine() -> Any:
    """Give an operator `sin(k x)` without any derivative."""

    @custom_op(f"forward_mode::sine{next(NUMBERS)}", mutates_args=())
    def sine(x: Tensor, k: float = 2.0) -> Tensor:
        return of_array(np.sin(x.numpy() * k))

    return sine


def setup(ctx: Any, inputs: Any, output: Any) -> None:
    """Keep the input."""
    ctx.save_for_backward(inputs.box.x)
    ctx.k = inputs.box.k


def backward(ctx: Any, g: Tensor) -> Any:
    """Give the gradient."""
    (x,) = ctx.saved_tensors
    return g * (x * ctx.k).cos() * ctx.k, None


def push(ctx: Any, t: Any, k: Any) -> Any:
    """Give the tangent."""
    assert k is None
    assert ctx.needs_input_grad == (True, False)
    (x,) = ctx.saved_tensors
    return t * (x * ctx.k).cos() * ctx.k


def check_sine(op: Any) -> None:
    """Hold first and second forward derivatives to what they are."""
    x, t = of_array(X), of_array(T)
    first = lambda x: jvp(lambda x: op(x, 3.0), (x,), (t,))[1]  # noqa: E731
    np.testing.assert_allclose(first(x).numpy(), 3 * T * np.cos(3 * X))
    second = jvp(first, (x,), (t,))[1].numpy()
    np.testing.assert_allclose(second, -9 * T * T * np.sin(3 * X))
    np.testing.assert_allclose(grad(lambda x: first(x).sum())(x).numpy(), -9 * T * np.sin(3 * X))


def test_a_jvp_of_an_author(sine: Any) -> None:
    """S132: jvp runs after the same setup_context, with one tangent or None per argument."""
    sine.register_autograd(backward, setup_context=setup)
    calls: list[Any] = []
    sine.register_jvp(lambda ctx, *ts: (calls.append(ts), push(ctx, *ts))[1])
    check_sine(sine)
    assert calls


def test_a_jvp_without_a_backward(sine: Any) -> None:
    """S132: jvp alone is enough for forward mode; linearize then runs the function again."""
    sine.register_jvp(lambda ctx, t, k: t * 5)
    x, t = of_array(X), of_array(T)
    assert jvp(sine, (x,), (t,))[1].tolist() == (5 * T).tolist()
    assert linearize(sine, x)[1](t).tolist() == (5 * T).tolist()


def test_a_backward_is_transposed(sine: Any) -> None:
    """S132: without a jvp the backward is transposed, at any order."""
    sine.register_autograd(backward, setup_context=setup)
    check_sine(sine)
    np.testing.assert_allclose(jacfwd(sine)(of_array(X)).numpy(), np.diag(2 * np.cos(2 * X)))


def test_no_rule_at_all(sine: Any) -> None:
    """S132: without a rule, and only where a tangent goes through, it is an error by name."""
    x, t = of_array(X), of_array(T)
    with pytest.raises(MissingGradientError, match="neither a jvp nor a backward") as error:
        jvp(sine, (x,), (t,))
    assert "register_jvp('forward_mode::sine" in str(error.value)
    assert jvp(lambda y: y * sine(x), (x,), (t,))[1].tolist() == (T * np.sin(2 * X)).tolist()
    sine.register_autograd(None)
    assert jvp(sine, (x,), (t,))[1].tolist() == [0, 0, 0]


def test_the_fallback_nothing(sine: Any) -> None:
    """S129: where operators without a gradient are to be constants, they are here too."""
    set_autograd_fallback("nothing")
    try:
        assert jvp(sine, (of_array(X),), (of_array(T),))[1].tolist() == [0, 0, 0]
    finally:
        set_autograd_fallback("backward")


def _by_numpy(ctx: Any, g: Tensor) -> Any:
    return of_array(g.numpy() * 2), None


def _by_force(ctx: Any, g: Tensor) -> Any:
    return of_array(g.numpy(force=True) * 2), None


def _detached(ctx: Any, g: Tensor) -> Any:
    return g.detach() * 2, None


def _looking(ctx: Any, g: Tensor) -> Any:
    return (g * 2 if bool(g.sum() > 0) else g), None


@pytest.mark.parametrize("rule", [_by_numpy, _by_force, _detached, _looking])
def test_a_backward_that_cannot_be_transposed(sine: Any, rule: Any) -> None:
    """S132: a backward that takes data off its gradient is refused, never silently zero."""
    sine.register_autograd(rule, setup_context=setup)
    with pytest.raises(MissingGradientError, match="cannot transpose its backward") as error:
        jvp(sine, (of_array(X),), (of_array(T),))
    assert "register_jvp" in error.value.fix
    assert "test_forward_rules.py" in error.value.source


def test_a_backward_by_operators_without_gradients(sine: Any) -> None:
    """S132, S133: a backward that calls what has no gradient is refused, naming both."""

    @custom_op("forward_mode::double", mutates_args=())
    def double(x: Tensor) -> Tensor:
        return of_array(x.numpy() * 2)

    sine.register_autograd(lambda ctx, g: (double(g), None))
    with pytest.raises(MissingGradientError, match="backward of forward_mode::sine.* called"):
        jvp(sine, (of_array(X),), (of_array(T),))


def test_none_from_backward_is_no_gradient(sine: Any) -> None:
    """S127: an author who returns None from backward says that there is no derivative."""
    sine.register_autograd(lambda ctx, g: (None, None))
    assert jvp(sine, (of_array(X),), (of_array(T),))[1].tolist() == [0, 0, 0]


UNFIT = {
    "a shape": (lambda ctx, t, k: t[:2], r"shape \(3,\) for result 0"),
    "a count": (lambda ctx, t, k: (t, t), "a Tensor for result 0"),
    "a number": (lambda ctx, t, k: 1.0, "a Tensor for result 0"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_tangents_that_do_not_fit(sine: Any, name: str) -> None:
    """S132: what jvp returns is checked against the results."""
    rule, declared = UNFIT[name]
    sine.register_jvp(rule)
    with pytest.raises(AutogradError, match="jvp returned tangents that do not fit") as error:
        jvp(sine, (of_array(X),), (of_array(T),))
    assert re.search(declared, error.value.declared)
    assert "test_forward_rules.py" in error.value.source


def test_several_results_and_lists() -> None:
    """S132: one tangent per result, lists mirrored, whole numbers without any."""

    @custom_op("forward_mode::parts", mutates_args=())
    def parts(xs: list[Tensor], k: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        a, b = (x.numpy() for x in xs)
        return of_array(a * b), of_array(np.argsort(a)), [of_array(a * k), of_array(b * 1)]

    seen: list[Any] = []

    def rule(ctx: Any, ts: Any, k: Any) -> Any:
        seen.append(ts)
        return ts[0] * ctx.b, None, [ts[0] * 3, None]

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.b = inputs[0]

    parts.register_autograd(lambda ctx, *g: ([None, None], None), setup_context=keep)
    parts.register_jvp(rule)
    x, y, t = of_array(X), of_array(T), of_array(T)
    out, d = jvp(lambda x: parts([x, y], 3), (x,), (t,))
    np.testing.assert_allclose(d[0].numpy(), T * T)
    assert d[1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(d[2][0].numpy(), 3 * T)
    assert d[2][1].tolist() == [0, 0, 0]
    assert seen[0][1] is None
    np.testing.assert_allclose(out[2][0].numpy(), 3 * X)


# -- Function -----------------------------------------------------------------


class Product(Function):
    """A product, by its backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        """Multiply."""
        return x * y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep both."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Give both gradients."""
        x, y = ctx.saved_tensors
        return g * y, g * x


class Pushed(Function):
    """The same by its jvp alone."""

    generate_vmap_rule = True
    forward = Product.forward
    setup_context = Product.setup_context

    @staticmethod
    def jvp(ctx: Any, tx: Tensor, ty: Tensor) -> Any:
        """Give the tangent; both are there, zeros included."""
        x, y = ctx.saved_tensors
        return tx * y + x * ty


class Neither(Function):
    """The same without any derivative."""

    forward = Product.forward
    setup_context = Product.setup_context


@pytest.mark.parametrize("cls", [Product, Pushed])
def test_functions(cls: Any) -> None:
    """S137: a Function is pushed through by its jvp, else by its transposed backward."""
    f = lambda x: cls.apply(x, x.sin())  # noqa: E731
    expected = T * (np.sin(X) + X * np.cos(X))
    x, t = of_array(X), of_array(T)
    np.testing.assert_allclose(jvp(f, (x,), (t,))[1].numpy(), expected)
    np.testing.assert_allclose(jvp(lambda x: vmap(f)(x), (x,), (t,))[1].numpy(), expected)
    np.testing.assert_allclose(vmap(lambda x, t: jvp(f, (x,), (t,))[1])(x, t).numpy(), expected)
    assert jvp(lambda y: cls.apply(x, y), (t,), (t,))[1].tolist() == (X * T).tolist()
    twice = jvp(lambda x: jvp(f, (x,), (t,))[1], (x,), (t,))[1].numpy()
    np.testing.assert_allclose(twice, T * T * (2 * np.cos(X) - X * np.sin(X)))


def test_functions_without_derivative() -> None:
    """S137: a Function with neither jvp nor backward is refused by name."""
    x = of_array(X)
    with pytest.raises(MissingGradientError, match="Neither has neither a jvp nor a backward"):
        jvp(lambda x: Neither.apply(x, x), (x,), (x,))
