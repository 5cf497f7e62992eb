"""Gradients of other libraries through our operators are those of our own, at kinks too."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop

FUNCTIONS = {
    "sigmoid": polyop.sigmoid,
    "relu": polyop.relu,
    "clip": lambda x: polyop.clip(x, 0.0, 1.0),
    "clip below": lambda x: polyop.clip(x, min=0.0),
    "clip above": lambda x: polyop.clip(x, max=1.0),
    "clip between arrays": lambda x: polyop.clip(x, polyop.zeros(1), polyop.ones(1)),
    "clip backwards": lambda x: polyop.clip(x, 1.0, 0.0),
    "clip to one": lambda x: polyop.clip(x, polyop.ones(1), polyop.ones(1)),
    "clip to one number": lambda x: polyop.clip(x, 1.0, 1.0),
    "clip by NaN": lambda x: polyop.clip(x, float("nan"), 1.0),
}
POINTS = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 800.0, -800.0, np.inf, -np.inf, np.nan])


def in_kind(fn: Any) -> Any:
    """Give a function of arrays that computes with tensors."""
    return lambda x: polyop.to_array(fn(polyop.from_array(x)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_at_kinks(library: Any, name: str) -> None:
    """S66: values are NumPy's, infinities and NaN among them."""
    fn = FUNCTIONS[name]
    found = fn(polyop.from_array(library.from_numpy(POINTS, None))).numpy()
    np.testing.assert_allclose(found, fn(polyop.from_numpy(POINTS)).numpy(), rtol=1e-15)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_at_kinks(name: str) -> None:
    """S66: gradients of PyTorch and JAX through a function are those of ours."""
    fn, points = FUNCTIONS[name], POINTS[np.isfinite(POINTS)]
    wanted = polyop.func.grad(lambda x: fn(x).sum())(polyop.from_numpy(points)).numpy()
    x = torch.tensor(points, requires_grad=True)
    in_kind(fn)(x).sum().backward()
    np.testing.assert_allclose(x.grad, wanted, rtol=1e-12)
    found = jax.grad(lambda x: in_kind(fn)(x).sum())(jnp.asarray(points))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_sides_that_meet_move_what_is_there() -> None:
    """S66: what is clipped to one array has its whole derivative in PyTorch and JAX too."""
    side = torch.tensor(1.0, requires_grad=True)
    polyop.clip(torch.tensor([-1.0, 1.0, 3.0]), side, side).sum().backward()
    assert side.grad == 3
    x = jnp.asarray([-1.0, 1.0, 3.0])
    assert jax.grad(lambda side: polyop.clip(x, side, side).sum())(1.0) == 3


def test_sigmoid_is_smooth() -> None:
    """S66: second gradients of the sigmoid are JAX's own."""
    for x in (0.0, 1.0, -2.0):
        found = jax.grad(jax.grad(in_kind(polyop.sigmoid)))(x)
        np.testing.assert_allclose(found, jax.grad(jax.grad(jax.nn.sigmoid))(x), atol=1e-15)


def test_a_batch_without_samples() -> None:
    """S66: numbers join a batch of PyTorch that has no samples, as in PyTorch."""
    x = torch.ones(0, 3)
    for fn in (lambda a: a * 2, polyop.relu, lambda a: polyop.where(a > 0, a, 1.0)):
        found = torch.func.vmap(in_kind(fn))(x)
        assert found.shape == (0, 3) and found.dtype == torch.float32


def written(x: polyop.Tensor) -> polyop.Tensor:
    y = x * x
    d = y.detach()
    d.mul_(2.0)
    d[1:] += 1.0
    y.detach()[0] = 5.0
    return (y * x).sum()


def test_writes_through_detached_views() -> None:
    """S136: they change values, and leave gradients what they are, in JAX as elsewhere."""
    at = np.array([1.0, 2.0, 3.0], np.float32)
    x = polyop.from_numpy(at).requires_grad_()
    written(x).backward()
    wanted = x.grad.tolist()
    slope = jax.grad(in_kind(written))
    assert slope(jnp.asarray(at)).tolist() == jax.jit(slope)(jnp.asarray(at)).tolist() == wanted
    assert jax.vmap(slope)(jnp.asarray([at, at])).tolist() == [wanted, wanted]
    y = torch.from_numpy(at).requires_grad_()
    in_kind(written)(y).backward()
    assert y.grad.tolist() == wanted
