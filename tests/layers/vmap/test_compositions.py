"""vmap with gradients, traces and other libraries' vmap as the judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop.assembly  # noqa: F401
from polyop.layers.autograd.transforms import grad
from polyop.layers.trace.make_fx import make_fx
from polyop.layers.vmap import vmap
from polyop.ops.elementwise import add, multiply, sin
from polyop.ops.linear import matmul
from polyop.ops.reductions import sum as total
from polyop.ops.views import expand_dims, moveaxis, transpose
from polyop.tensor.tensor import Tensor, of_array

jax.config.update("jax_enable_x64", True)
W = np.linspace(-1, 1, 12).reshape(3, 4)
X = np.linspace(0, 2, 20).reshape(5, 4)


def loss(w: Tensor, x: Tensor) -> Tensor:
    return total(multiply(sin(matmul(w, x)), matmul(w, x)))


def jax_loss(w: Any, x: Any) -> Any:
    return (jnp.sin(w @ x) * (w @ x)).sum()


def test_gradients_per_sample() -> None:
    """S134: vmap of grad gives each sample's gradient."""
    got = vmap(grad(loss), (None, 0))(of_array(W), of_array(X))
    want = jax.vmap(jax.grad(jax_loss), (None, 0))(W, X)
    np.testing.assert_allclose(got.numpy(), want)


def test_gradient_of_a_batch() -> None:
    """S134: grad of vmap gives the gradient of the sum."""

    def f(w: Tensor) -> Tensor:
        return total(vmap(loss, (None, 0))(w, of_array(X)))

    got = grad(f)(of_array(W))
    want = jax.grad(lambda w: jax.vmap(jax_loss, (None, 0))(w, X).sum())(W)
    np.testing.assert_allclose(got.numpy(), want)


def test_second_gradients_in_a_batch() -> None:
    """S134: vmap, grad and grad nest."""

    def g_of_sum(x: Tensor) -> Tensor:
        return total(grad(lambda y: total(multiply(sin(y), multiply(y, y))))(x))

    got = vmap(grad(g_of_sum))(of_array(X))
    want = jax.vmap(jax.grad(lambda x: jax.grad(lambda y: (jnp.sin(y) * y * y).sum())(x).sum()))(X)
    np.testing.assert_allclose(got.numpy(), want)


def test_backward_through_vmap() -> None:
    """S134: autograd records what vmap runs on tensors that require grad."""
    w, x = of_array(W.copy()).requires_grad_(), of_array(X)
    total(vmap(loss, (None, 0))(w, x)).backward()
    tw = torch.tensor(W, requires_grad=True)
    torch.vmap(lambda w, x: (torch.sin(w @ x) * (w @ x)).sum(), (None, 0))(
        tw, torch.tensor(X)
    ).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), tw.grad.numpy())


def test_traced_vmap_is_a_graph_of_batches() -> None:
    """S156: a trace sees the operators that vmap runs, once for the whole batch."""
    f = vmap(lambda x: add(multiply(x, 2.0), x))
    gm = make_fx(f)(of_array(X))
    np.testing.assert_allclose(gm(of_array(X)).numpy(), X * 3)
    assert len([n for n in gm.graph.nodes if n.op == "call_function"]) == 2


Programs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 9)), max_size=8)

OURS: list[Callable[[Any, Any], Any]] = [
    lambda a, b: add(a, b),
    lambda a, b: multiply(a, b),
    lambda a, b: sin(a),
    lambda a, b: add(a, expand_dims(total(b, axis=0), 0)),
    lambda a, b: transpose(a, 0, 1),
    lambda a, b: matmul(a, b),
    lambda a, b: vmap(lambda r, c: multiply(r, total(c)), (1, 0), 1)(a, moveaxis(b, 0, 1)),
]
JAXS: list[Callable[[Any, Any], Any]] = [
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: jnp.sin(a),
    lambda a, b: a + b.sum(0)[None],
    lambda a, b: a.T,
    lambda a, b: a @ b,
    lambda a, b: jax.vmap(lambda r, c: r * c.sum(), (1, 0), 1)(a, jnp.moveaxis(b, 0, 1)),
]


def run(table: list[Callable[[Any, Any], Any]], steps: Any) -> Callable[..., Any]:
    def program(x: Any, y: Any) -> Any:
        pool = [x, y]
        for which, i, j in steps:
            pool.append(table[which](pool[i % len(pool)], pool[j % len(pool)]))
        return pool[-1]

    return program


@settings(max_examples=60, deadline=None)
@given(
    Programs, st.sampled_from([(0, 0), (1, None), (None, 2), (2, 0), (-1, 1)]), st.integers(0, 2)
)
def test_random_programs_against_jax(steps: Any, dims: Any, out: int) -> None:
    """S157: random programs, with a vmap inside, give what jax.vmap gives."""
    rng = np.random.default_rng(len(steps))
    arrays = [rng.standard_normal((3, 3, 3) if d is not None else (3, 3)) * 0.3 for d in dims]
    got = vmap(run(OURS, steps), dims, out)(*map(of_array, arrays))
    want = jax.vmap(run(JAXS, steps), dims, out)(*arrays)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_both_orders_of_nesting_agree(axis: int) -> None:
    """S134: vmap of vmap of grad equals the loops."""
    xs = of_array(np.linspace(0, 1, 12).reshape(3, 4))
    got = vmap(vmap(grad(lambda a: multiply(sin(a), a))), axis, axis)(xs)
    x = xs.numpy()
    np.testing.assert_allclose(got.numpy(), np.cos(x) * x + np.sin(x))
