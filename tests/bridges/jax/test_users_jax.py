"""What users of JAX give and expect: numbers of Python, arrays without axes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import polyop
from polyop import Tensor


@polyop.custom_op("users_jax::square", mutates_args=(), tags="pointwise")
def square(x: Tensor) -> Tensor:
    return polyop.from_numpy(x.numpy() ** 2)  # a scalar of NumPy, where there are no axes


square.register_fake(lambda x: polyop.empty_like(x))
square.register_autograd(
    lambda ctx, g: 2 * g * ctx.saved_tensors[0],
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@pytest.mark.parametrize("x", [3.0, np.float32(3), np.array(3.0, np.float32), jnp.float32(3)])
def test_derivatives_at_a_number(x: Any) -> None:
    """S124: a number of Python, which JAX has among its literals, is differentiated as an array."""
    assert jax.grad(square)(x) == 6
    assert jax.grad(jax.grad(square))(x) == 2
    assert jax.hessian(square)(x) == 2
    assert jax.jit(jax.grad(square))(x) == 6
    assert jax.jvp(square, (x,), (np.float32(2),))[1] == 12
    assert jax.linearize(square, x)[1](np.float32(2)) == 12
    assert jax.vjp(square, x)[1](2.0)[0] == 12
    assert jax.grad(jax.checkpoint(square))(x) == 6
    assert jax.grad(lambda v: jax.lax.scan(lambda c, _: (square(c), None), v, None, 2)[0])(x) == 108


def test_jvp_with_numbers_alone() -> None:
    """S124: so it is in forward mode, where the direction is a number too."""
    found, moved = jax.jvp(square, (3.0,), (2.0,))
    assert (found, moved) == (9, 12)
    assert moved.dtype == found.dtype == jnp.float32
