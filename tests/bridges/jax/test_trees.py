"""Tensors are nodes of JAX's trees: its transforms take them and give them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import polyop
from polyop import Tensor, from_array, to_array
from polyop.errors import AutogradError, UsageTypeError

X = np.array([0.5, -1.0, 2.0], "f4")


def chain(t: Any) -> Any:
    return polyop.sin(t) * t


@pytest.mark.parametrize("make", [polyop.from_numpy, lambda x: from_array(jnp.asarray(x))])
def test_transforms_take_and_give_tensors(make: Any) -> None:
    """S117: under jit, grad, vmap and scan a tensor stands for its array, inside and outside."""
    t = make(X)
    wanted = np.sin(X) * X
    found = jax.jit(chain)(t)
    assert isinstance(found, Tensor)
    assert np.allclose(to_array(found), wanted, atol=1e-6)
    slope = jax.grad(lambda t: to_array(chain(t).sum()))(t)
    assert np.allclose(to_array(slope), np.cos(X) * X + np.sin(X), atol=1e-6)
    each = jax.vmap(lambda d: {"y": chain(d["x"])}, in_axes=({"x": 0},))({"x": t})
    assert np.allclose(to_array(each["y"]), wanted, atol=1e-6)
    last, sums = jax.lax.scan(lambda c, x: (c + x, c * x), from_array(jnp.zeros(())), t)
    assert np.allclose(to_array(last), X.sum())
    assert np.allclose(to_array(sums), [0, -0.5, -1.0])


def test_a_write_inside_stays_inside() -> None:
    """S117: what a compiled function writes is its own tensor; the caller's is what it was."""
    t = polyop.from_numpy(X.copy())

    def doubled(t: Tensor) -> Tensor:
        t.mul_(2)
        return t

    assert np.array_equal(to_array(jax.jit(doubled)(t)), 2 * X)
    assert np.array_equal(t.numpy(), X)


def test_trees_keep_their_leaves() -> None:
    """S184: a tree of tensors comes back, with arrays, and with what is none."""
    trees: Any = {"a": [polyop.ones(2)], "b": from_array(jnp.zeros(3))}
    leaves, form = jax.tree.flatten(trees)
    assert [type(x).__module__.partition(".")[0] for x in leaves] == ["numpy", "jaxlib"]
    back = jax.tree.unflatten(form, leaves)
    assert to_array(back["a"][0]) is leaves[0]
    assert to_array(back["b"]) is leaves[1]
    marks = [object(), None]
    assert (
        jax.tree.flatten(jax.tree.unflatten(form, marks), is_leaf=lambda x: x is None)[0] == marks
    )
    facts = jax.eval_shape(chain, polyop.ones(2, 3))
    assert jax.tree.leaves(facts)[0].shape == (2, 3)


def test_a_history_is_not_lost_in_silence() -> None:
    """S129: a tensor that requires grad, or of a running transform, is refused by name."""
    t = polyop.ones(2, requires_grad=True)
    with pytest.raises(AutogradError, match="would lose its history in JAX"):
        jax.jit(chain)(t)
    assert np.array_equal(to_array(jax.jit(chain)(t.detach())), jnp.sin(jnp.ones(2)))
    with pytest.raises(UsageTypeError, match="takes a tensor over an array"):
        polyop.vmap(lambda x: jax.jit(chain)(x))(polyop.ones(3))


@pytest.mark.parametrize("order", ["import jax, polyop", "import polyop, jax"])
def test_either_may_be_imported_first(order: str) -> None:
    """S184: no operator need be defined, and no bridge be read before."""
    program = f"{order}\nprint(jax.jit(lambda t: t + t)(polyop.ones(2)).sum().item())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["4.0"]
