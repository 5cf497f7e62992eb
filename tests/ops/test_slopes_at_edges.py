"""Derivatives where a function is constant in pieces, or where they have no bound."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor
from polyop.func import grad, jvp, vjp

CONSTANT: dict[str, Any] = {
    "floor": polyop.floor,
    "ceil": polyop.ceil,
    "round": polyop.round,
    "trunc": polyop.trunc,
    "sign": polyop.sign,
    "power zero": lambda x: x**0,
    "angle": polyop.angle,
    "side of copysign": lambda x: polyop.copysign(polyop.full_like(x, 2.0), x),
    "floor_divide": lambda x: x // 2.0,
    "divisor of floor_divide": lambda x: polyop.full_like(x, 2.0) // x,
}


@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.parametrize("given", [np.inf, np.nan])
def test_what_is_constant_has_no_slope(name: str, given: float) -> None:
    """S134: whatever a gradient or a tangent is, a function constant in pieces makes zero of it."""
    fn, x, g = CONSTANT[name], polyop.asarray([1.5, -0.5]), polyop.full((2,), given)

    def pulled(x: Tensor, g: Tensor) -> Any:
        return vjp(fn, x)[1](g)[0]

    assert pulled(x, g).tolist() == [0, 0]
    assert polyop.compile(pulled)(x, g).tolist() == [0, 0]
    assert jvp(fn, (x,), (g,))[1].tolist() == [0, 0]


def along(fn: Any) -> Any:
    """Give the derivative of a function of one number by forward mode."""
    return lambda x: jvp(fn, (x,), (polyop.ones_like(x),))[1]


def seconds(fn: Any, x: float) -> list[float]:
    """Give the second derivative by each pair of modes."""
    at = polyop.asarray(x, dtype=polyop.float64)
    with np.errstate(all="ignore"):
        return [a(b(fn))(at).item() for a in (grad, along) for b in (grad, along)]


@pytest.mark.parametrize(
    ("fn", "own"),
    [
        (lambda x: polyop.fmod(polyop.full_like(x, 3.0), x), lambda x: jnp.fmod(3.0, x)),
        (lambda x: polyop.abs(x) * np.inf, lambda x: jnp.abs(x) * jnp.inf),
        (polyop.acosh, jnp.arccosh),
    ],
    ids=["fmod", "abs", "acosh"],
)
@pytest.mark.parametrize("x", [0.0, 1.0, 2.0])
def test_second_derivatives_beside_infinities(fn: Any, own: Any, x: float) -> None:
    """S134: they are JAX's, in each pair of modes."""
    wanted = jax.grad(jax.grad(own))(x).item()
    np.testing.assert_allclose(seconds(fn, x), [wanted] * 4, rtol=1e-5)


def test_the_second_derivative_of_a_power_of_itself_has_no_bound() -> None:
    """S134: that of `x ** x`, which is `x ** x * (log(x) + 1) ** 2 + x ** (x - 1)`."""
    assert seconds(lambda x: x**x, 0.0) == [np.inf] * 4
    np.testing.assert_allclose(seconds(lambda x: x**x, 1.0), [2] * 4)


@pytest.mark.parametrize(("exponent", "mixed"), [(0.0, np.inf), (1.0, -np.inf), (2.0, 0.0)])
def test_mixed_derivatives_of_a_power_of_zero(exponent: float, mixed: float) -> None:
    """S134: the slope by the exponent changes with the base as `x ** (b - 1) * (1 + b log(x))`."""
    base, b = (polyop.tensor(v, requires_grad=True) for v in (0.0, exponent))
    with np.errstate(all="ignore"):
        (slope,) = polyop.autograd.grad(base**b, [b], create_graph=True)
        assert slope.item() == 0
        (found,) = polyop.autograd.grad(slope, [base])
    assert found.item() == mixed


def test_an_angle_has_no_second_derivative_at_zero() -> None:
    """S134: as in PyTorch, it is no number there; the first is zero."""
    zero = polyop.asarray(0j)
    with np.errstate(all="ignore"):
        slope, pull = vjp(grad(polyop.angle), zero)
        found = pull(polyop.ones_like(zero))[0]
    assert slope.item() == 0
    assert not np.isfinite(found.item())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_determinants_of_what_is_not_finite_have_nan_for_gradients(bad: float, kind: Any) -> None:
    """S134: of a stack, those of the other matrices stay."""
    x = np.stack([np.outer([bad, 1, 2], [bad, 1, 2]), np.eye(3)])
    with np.errstate(all="ignore"):
        found = grad(lambda x: polyop.linalg.det(x).sum())(polyop.from_array(kind(x))).numpy()
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], np.eye(3))


@pytest.mark.parametrize("dtype", [polyop.float16, polyop.bfloat16])
def test_the_deviation_of_half_precision_does_not_overflow(dtype: Any) -> None:
    """S66: the root is taken of the variance before it is rounded, as in PyTorch."""
    x = polyop.asarray([300.0, -300.0]).astype(dtype)
    std = polyop.compile(polyop.std)
    for found in (polyop.std(x), std(x), polyop.std(polyop.from_array(torch.tensor(x.tolist())))):
        assert found.item() == 300
