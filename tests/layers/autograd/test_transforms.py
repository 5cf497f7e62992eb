"""`func.grad`, `vjp`, and how they nest with each other, `vmap` and plain autograd."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.rules import register_autograd
from polyop.errors import AutogradError, MutationError, UsageError, UsageTypeError
from polyop.layers.autograd import no_grad
from polyop.layers.autograd.transforms import grad, grad_and_value, value_and_grad, vjp
from polyop.layers.vmap import vmap
from polyop.ops.define import ON_TENSORS as OPS
from polyop.tensor.tensor import Tensor, of_array

jax.config.update("jax_enable_x64", True)
mul, sin, exp, total = OPS["multiply"], OPS["sin"], OPS["exp"], OPS["sum"]
X = np.array([0.3, 0.7, -0.2])


def ours(x: Tensor) -> Tensor:
    """Compute a scalar."""
    return total(exp(mul(sin(x), x)))


def theirs(x: Any) -> Any:
    """Compute the same by JAX."""
    return jnp.sum(jnp.exp(jnp.sin(x) * x))


def test_any_order() -> None:
    """S134: gradients of gradients equal JAX's."""
    f, g = ours, theirs
    for _ in range(3):
        f, g = _sum_of(grad(f), total), _sum_of(jax.grad(g), jnp.sum)
        np.testing.assert_allclose(f(of_array(X)).numpy(), g(X), rtol=1e-9)


def _sum_of(f: Any, add_up: Any) -> Any:
    return lambda x: add_up(f(x))


def test_argnums_and_aux() -> None:
    """S134: several arguments give a tuple, and aux is handed on unwrapped."""
    a, b = of_array(X), of_array(X + 1)
    (ga, gb), (value, aux) = grad_and_value(lambda a, b: (total(mul(a, b)), exp(a)), (0, -1), True)(
        a, b
    )
    np.testing.assert_allclose(ga.numpy(), X + 1)
    np.testing.assert_allclose(gb.numpy(), X)
    np.testing.assert_allclose(aux.numpy(), np.exp(X))
    assert value.item() == pytest.approx((X * (X + 1)).sum())
    value, g = value_and_grad(ours)(a)
    np.testing.assert_allclose(value.item(), theirs(X))
    np.testing.assert_allclose(g.numpy(), jax.grad(theirs)(X))


def test_trees_and_unused_inputs() -> None:
    """S134: an argument may be a tree, and what is not used gets zeros."""
    g = grad(lambda p: total(mul(p["w"][0], p["w"][0])))({"w": [of_array(X)], "b": of_array(X)})
    np.testing.assert_allclose(g["w"][0].numpy(), 2 * X)
    assert g["b"].tolist() == [0, 0, 0]


def test_vjp() -> None:
    """S134: vjp gives the result and its pullback, which may be called again."""
    out, pull = vjp(lambda a, b: (mul(a, b), exp(a)), of_array(X), of_array(X + 1))
    assert [tuple(o.shape) for o in out] == [(3,), (3,)]
    ones, zeros = of_array(np.ones(3)), of_array(np.zeros(3))
    ga, gb = pull((ones, zeros))
    np.testing.assert_allclose(gb.numpy(), X)
    np.testing.assert_allclose(pull((zeros, ones))[0].numpy(), np.exp(X))
    np.testing.assert_allclose(ga.numpy(), X + 1)
    with pytest.raises(UsageError, match="2 results"):
        pull((ones,))
    with pytest.raises(AutogradError, match="shape"):
        pull((ones, of_array(np.ones(2))))


def test_vmap_of_grad_and_grad_of_vmap() -> None:
    """S134: vmap of grad, and grad of vmap, equal the loop."""
    one = lambda x: mul(sin(x), x)  # noqa: E731
    expected = np.cos(X) * X + np.sin(X)
    np.testing.assert_allclose(vmap(grad(one))(of_array(X)).numpy(), expected)
    np.testing.assert_allclose(grad(lambda x: total(vmap(one)(x)))(of_array(X)).numpy(), expected)
    second = vmap(grad(grad(one)))(of_array(X)).numpy()
    np.testing.assert_allclose(second, jax.vmap(jax.grad(jax.grad(lambda x: jnp.sin(x) * x)))(X))


def test_a_jacobian() -> None:
    """S134: a vmapped pullback gives the Jacobian."""
    _, pull = vjp(lambda x: mul(exp(x), total(x)), of_array(X))
    rows = vmap(lambda v: pull(v)[0])(of_array(np.eye(3)))
    np.testing.assert_allclose(rows.numpy(), jax.jacrev(lambda x: jnp.exp(x) * x.sum())(X))


def test_plain_autograd_outside() -> None:
    """S134: what grad gives can be differentiated by backward, for inputs and captured tensors."""
    x, w = of_array(X).requires_grad_(), of_array(X + 1).requires_grad_()
    g = grad(lambda x: total(mul(mul(x, x), w)))(x)
    total(mul(g, g)).backward()
    np.testing.assert_allclose(x.grad.numpy(), 8 * X * (X + 1) ** 2)
    np.testing.assert_allclose(w.grad.numpy(), 8 * X**2 * (X + 1))


def test_grad_mode() -> None:
    """S140: no_grad inside stops the gradient; no_grad outside does not."""

    def part(x: Tensor) -> Tensor:
        with no_grad():
            held = exp(x)
        return total(mul(x, held))

    np.testing.assert_allclose(grad(part)(of_array(X)).numpy(), np.exp(X))
    x = of_array(X).requires_grad_()
    with no_grad():
        g = grad(ours)(x)
    assert not g.requires_grad
    np.testing.assert_allclose(g.numpy(), jax.grad(theirs)(X))


@custom_op("ttransform::sin", mutates_args=())
def custom_sin(x: Tensor) -> Tensor:
    """Sine."""
    return of_array(np.sin(x.numpy()))


register_autograd(
    custom_sin,
    lambda ctx, g: mul(g, OPS["cos"](ctx.saved_tensors[0])),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0], output),
)


def test_custom_operators() -> None:
    """S134: an author's gradient works in every nesting of grad."""
    f = lambda x: total(mul(custom_sin(x), x))  # noqa: E731
    g = lambda x: jnp.sum(jnp.sin(x) * x)  # noqa: E731
    np.testing.assert_allclose(grad(f)(of_array(X)).numpy(), jax.grad(g)(X))
    ours_second = grad(lambda x: total(grad(f)(x)))(of_array(X))
    np.testing.assert_allclose(ours_second.numpy(), jax.grad(lambda x: jax.grad(g)(x).sum())(X))


def test_saved_results_under_a_level() -> None:
    """S134: an author's saved result is the value below the level."""

    @custom_op("ttransform::exp", mutates_args=(), replace=True)
    def custom_exp(x: Tensor) -> Tensor:
        return of_array(np.exp(x.numpy()))

    register_autograd(
        custom_exp,
        lambda ctx, g: mul(g, ctx.saved_tensors[0]),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output),
    )
    f = grad(lambda x: total(custom_exp(mul(x, x))))
    second = grad(lambda x: total(f(x)))(of_array(X)).numpy()
    np.testing.assert_allclose(second, (2 + 4 * X**2) * np.exp(X**2))


def test_writes_inside() -> None:
    """S134: writes to what was computed are followed; inputs are not written."""

    def f(x: Tensor) -> Tensor:
        y = mul(x, 2.0)
        OPS["multiply_"](y, x)
        return total(y)

    np.testing.assert_allclose(grad(f)(of_array(X)).numpy(), 4 * X)
    with pytest.raises(MutationError, match="input of func.grad"):
        grad(lambda x: total(OPS["exp_"](x)))(of_array(X))


def test_an_escaped_tensor() -> None:
    """A tensor of a level that has ended is refused, by operators and by looks at its data."""
    leak: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        leak.append(mul(x, x))
        assert leak[-1][0].item() == pytest.approx(0.09)
        return total(x)

    grad(f)(of_array(X))
    with pytest.raises(AutogradError, match="after func.grad has ended"):
        exp(leak[0])
    with pytest.raises(AutogradError, match="after func.grad has ended"):
        leak[0].tolist()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: grad(ours, 1)(x), UsageError, "argnums"),
        (lambda x: grad(ours)(of_array(np.arange(3))), UsageTypeError, "floating"),
        (lambda x: grad(ours)(1.0), UsageTypeError, "floating"),
        (lambda x: grad(exp)(x), UsageError, "without axes"),
        (lambda x: grad(lambda x: 1.0)(x), UsageTypeError, "returns a Tensor"),
        (lambda x: grad(ours, has_aux=True)(x), UsageError, r"\(result, aux\)"),
    ],
)
def test_mistakes(call: Any, error: Any, text: str) -> None:
    """S1: each wrong use of func.grad says what is wrong."""
    with pytest.raises(error, match=text):
        call(of_array(X))


@pytest.mark.parametrize("which", ["view", "base"])
def test_a_write_reaches_what_shares_the_memory(which: str) -> None:
    """S130, S136: a write to a view reaches its base, and one to a base its views."""

    def f(x: Tensor) -> Tensor:
        y = mul(x, 2.0)
        view = y.reshape(-1)
        OPS["add_"](view if which == "view" else y, 1.0)
        return total(mul(y, view.reshape(y.shape)))

    np.testing.assert_allclose(grad(f)(polyop.ones(2, 3)).numpy(), 12 * np.ones((2, 3)))
