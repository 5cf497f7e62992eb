"""Authors' pointwise operators under vmap, where only some of the tensors have a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.fake import FakeTensorMode
from polyop.func import grad, jvp, vmap
from polyop.graph import make_fx

jax = pytest.importorskip("jax")


def made(name: str, *, tangent: bool = False) -> Any:
    """Define `x * y * y` as an author does who thinks of two tensors of one shape."""
    op: Any = polyop.custom_op(
        f"authors_pointwise::{name}",
        lambda x, y: polyop.from_numpy(x.numpy() * y.numpy() ** 2),
        mutates_args=(),
        schema="(Tensor x, Tensor y) -> Tensor",
        tags="pointwise",
    )
    op.register_fake(lambda x, y: polyop.empty_like(x))

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, g: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return g * y * y, g * x * y * 2.0

    op.register_autograd(backward, setup_context=keep)
    if tangent:
        op.register_jvp(_tangent)
    return op


def _tangent(ctx: Any, dx: Tensor | None, dy: Tensor | None) -> Any:
    x, y = ctx.saved_tensors
    parts = [None if dx is None else dx * y * y, None if dy is None else 2.0 * dy * x * y]
    return sum(p for p in parts if p is not None)


OPERATORS = {"backward": made("backward"), "jvp": made("jvp", tangent=True)}
X = polyop.from_numpy(np.random.default_rng(0).normal(size=(4, 3)))
W = polyop.from_numpy(np.random.default_rng(1).normal(size=3))
T = polyop.from_numpy(np.random.default_rng(2).normal(size=(4, 3)))


def each(f: Callable[[Tensor], Any]) -> Any:
    """Run a function for each sample in turn."""
    return np.stack([f(X[i]).numpy() for i in range(4)])


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", OPERATORS)
def test_one_tensor_without_a_batch(name: str, first: bool) -> None:
    """S157: derivatives of the batch and batches of derivatives are those of the loop."""
    op = OPERATORS[name]

    def f(a: Tensor, w: Tensor) -> Any:
        return op(a, w) if first else op(w, a)

    def total(w: Tensor) -> Any:
        return polyop.sum(vmap(lambda a: f(a, w))(X) * T)

    np.testing.assert_allclose(vmap(lambda a: f(a, W))(X).numpy(), each(lambda a: f(a, W)))
    slow = sum(grad(lambda w, i=i: polyop.sum(f(X[i], w) * T[i]))(W).numpy() for i in range(4))
    np.testing.assert_allclose(grad(total)(W).numpy(), slow, rtol=1e-13)
    mine = W.clone().requires_grad_()
    total(mine).backward()
    assert mine.grad is not None
    np.testing.assert_allclose(mine.grad.numpy(), slow, rtol=1e-13)
    found = jvp(vmap(lambda a: f(a, W)), (X,), (T,))[1]
    slow = np.stack([jvp(lambda a: f(a, W), (X[i],), (T[i],))[1].numpy() for i in range(4)])
    np.testing.assert_allclose(found.numpy(), slow, rtol=1e-13)
    found = jvp(lambda w: vmap(lambda a: f(a, w))(X), (W,), (W,))[1]
    slow = np.stack([jvp(lambda w, i=i: f(X[i], w), (W,), (W,))[1].numpy() for i in range(4)])
    np.testing.assert_allclose(found.numpy(), slow, rtol=1e-13)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("first", [True, False])
def test_fakes_and_traces(first: bool, axis: int) -> None:
    """S157: a fake rule of two equal shapes gives the whole batch, along any axis."""
    op = OPERATORS["backward"]
    w = W if axis == 0 else polyop.ones(4, dtype=polyop.float64)

    def f(x: Tensor) -> Any:
        return vmap(lambda a: op(a, w) if first else op(w, a), in_dims=axis)(x)

    plain = f(X)
    np.testing.assert_array_equal(make_fx(f, tracing_mode="symbolic")(X)(X).numpy(), plain.numpy())
    with FakeTensorMode() as mode:
        w = mode.from_tensor(w)
        assert tuple(f(mode.from_tensor(X)).shape) == tuple(plain.shape)


def test_three_tensors_and_samples_of_other_shapes() -> None:
    """S157: scalars beside a batch are broadcast by the operator, as they are without vmap."""
    op: Any = polyop.custom_op(
        "authors_pointwise::three",
        lambda x, y, z: polyop.from_numpy(x.numpy() * y.numpy() + z.numpy()),
        mutates_args=(),
        schema="(Tensor x, Tensor y, Tensor z) -> Tensor",
        tags="pointwise",
    )
    s = polyop.tensor(2.0, dtype=polyop.float64)
    found = vmap(lambda a, z: op(a, s, z))(X, T)
    np.testing.assert_allclose(found.numpy(), X.numpy() * 2.0 + T.numpy())
    found = vmap(lambda a: op(a, W, W))(X)
    np.testing.assert_allclose(found.numpy(), X.numpy() * W.numpy() + W.numpy())


@pytest.mark.parametrize("first", [True, False])
def test_in_jax(first: bool) -> None:
    """S157: so it is under JAX's own transforms."""
    op = OPERATORS["backward"]
    x, w = jax.numpy.asarray(X.numpy(), "float32"), jax.numpy.asarray(W.numpy(), "float32")

    def f(a: Any, w: Any) -> Any:
        return op(a, w) if first else op(w, a)

    def plain(a: Any, w: Any) -> Any:
        return a * w * w if first else w * a * a

    for g in (f, plain):
        g.batch = jax.vmap(lambda a, g=g: g(a, w))(x)  # type: ignore[attr-defined]
        g.grad = jax.grad(lambda w, g=g: jax.vmap(lambda a: g(a, w))(x).sum())(w)  # type: ignore[attr-defined]
        g.slope = jax.vmap(lambda t, g=g: jax.jvp(lambda a: g(a, w), (w,), (t,))[1])(x)  # type: ignore[attr-defined]
    for part in ("batch", "grad", "slope"):
        np.testing.assert_allclose(getattr(f, part), getattr(plain, part), rtol=1e-5)
