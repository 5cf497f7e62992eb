"""Half precision is summed in single and rounded once, over every library; softmax and its kin."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor
from polyop.func import grad, hessian, jvp

HALVES = [polyop.float16, polyop.bfloat16, polyop.float8_e4m3fn]
linalg = polyop.linalg

#: Functions of a matrix, along its outer axis.
FUNCTIONS = {
    "sum": lambda x: polyop.sum(x, axis=0),
    "sum of all": polyop.sum,
    "sum to": lambda x: polyop.ops.core.sum_to(x, [2]),
    "sum in a dtype": lambda x: polyop.sum(x.astype(polyop.float32), axis=0, dtype=x.dtype),
    "product": lambda x: polyop.prod(x, axis=0),
    "running sum": lambda x: polyop.cumulative_sum(x, axis=0),
    "running sum from zero": lambda x: polyop.cumulative_sum(x, axis=0, include_initial=True),
    "running product": lambda x: polyop.cumulative_prod(x, axis=0),
    "softmax": lambda x: polyop.softmax(x, axis=0),
    "log_softmax": lambda x: polyop.log_softmax(x, axis=0),
    "logsumexp": lambda x: polyop.logsumexp(x, axis=0),
    "norm": lambda x: linalg.vector_norm(x, axis=0),
    "norm of third powers": lambda x: linalg.vector_norm(x, axis=0, ord=3),
    "trace": lambda x: linalg.trace(polyop.broadcast_to(x[:, 0], (200, 200))),
}
#: Gradients in which many elements are added up, or multiplied.
GRADIENTS = {
    "bias": lambda x: grad(lambda b: (x * b).sum())(polyop.ones(2, dtype=x.dtype)),
    "broadcast": lambda x: grad(lambda b: polyop.broadcast_to(b, x.shape).sum())(x[0]),
    "running sum": grad(lambda x: polyop.cumulative_sum(x, axis=0).sum()),
    "product": grad(lambda x: polyop.prod(x, axis=0).sum()),
    "running product": grad(lambda x: polyop.cumulative_prod(x[:8], axis=0).sum()),
}


def numbers(dtype: Any) -> Tensor:
    """Give numbers near one, whose sums of half precision stand still before the end."""
    x = 0.875 + np.random.default_rng(0).integers(0, 2, (200, 2)) / 4
    return polyop.asarray(x.astype(np.float32)).astype(dtype)


def single(x: Tensor) -> Any:
    """Give elements as NumPy's floats."""
    return x.astype(polyop.float32).numpy()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_sums_are_rounded_once(name: str, dtype: Any) -> None:
    """S66: a fold of half precision is that of single precision, rounded."""
    fn, x = FUNCTIONS[name], numbers(dtype)
    if name == "sum in a dtype":
        wanted = polyop.sum(x.astype(polyop.float32), axis=0).astype(dtype)
    else:
        wanted = fn(x.astype(polyop.float32)).astype(dtype)
    for found in (fn(x), polyop.compile(fn)(x), polyop.vmap(fn)(x[None])[0]):
        assert found.dtype == dtype
        np.testing.assert_array_equal(single(found), single(wanted))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_rounded_once(name: str, dtype: Any) -> None:
    """S134: what gradients add up of half precision is added up in single."""
    fn, x = GRADIENTS[name], numbers(dtype)
    wanted = fn(x.astype(polyop.float32)).astype(dtype)
    eps = polyop.finfo(dtype).eps
    np.testing.assert_allclose(single(fn(x)), single(wanted), rtol=2 * eps)


@pytest.mark.parametrize("dtype", HALVES[:2], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_libraries_agree_on_half_precision(name: str, dtype: Any) -> None:
    """S66: over PyTorch and JAX half precision is summed in single as well."""
    fn, x = FUNCTIONS[name], numbers(dtype)
    kind = getattr(torch, dtype.name)
    others = [torch.from_numpy(single(x)).to(kind), jnp.asarray(polyop.to_array(x))]
    for array in others:
        found = fn(polyop.from_array(array))
        eps = polyop.finfo(dtype).eps
        np.testing.assert_allclose(single(found), single(fn(x)), rtol=2 * eps)


def test_a_bias_gets_its_whole_gradient_in_backward() -> None:
    """S134: the gradient of a repeated bias counts past 256 in bfloat16."""
    bias = polyop.zeros(1, dtype=polyop.bfloat16, requires_grad=True)
    (polyop.ones((1024, 1), dtype=polyop.bfloat16) + bias).sum().backward()
    assert bias.grad.item() == 1024


@pytest.mark.parametrize("size", [32752.0, 6.1e-5])
@pytest.mark.parametrize("order", [2, 3, 1.5])
def test_norms_of_half_precision_neither_overflow_nor_vanish(size: float, order: float) -> None:
    """S66: a norm that half precision holds is found, with its gradient, as in PyTorch."""
    x = np.full(2, size, np.float16)
    t = torch.from_numpy(x)
    found = linalg.vector_norm(polyop.asarray(x), ord=order).item()
    np.testing.assert_allclose(found, torch.linalg.vector_norm(t, order), rtol=2e-3)
    slope = grad(lambda v: linalg.vector_norm(v, ord=order))(polyop.asarray(x)).numpy()
    np.testing.assert_allclose(slope, np.full(2, 2 ** (1 / order - 1)), rtol=4e-3)


# -- softmax ------------------------------------------------------------------


@pytest.mark.parametrize("large", [1e8, 1e16])
def test_logsumexp_has_the_slope_of_softmax(large: float) -> None:
    """S134: derivatives of `logsumexp` are softmax's, however large its arguments."""
    x = polyop.full((4,), large, dtype=polyop.float32 if large < 1e9 else polyop.float64)
    given = jnp.asarray(x.numpy(), jnp.float32)
    assert grad(polyop.logsumexp)(x).tolist() == [0.25] * 4
    assert jvp(polyop.logsumexp, (x,), (polyop.ones_like(x),))[1].item() == 1
    wanted = jax.hessian(jax.nn.logsumexp)(given)
    np.testing.assert_allclose(hessian(polyop.logsumexp)(x).numpy(), wanted, atol=1e-7)


@pytest.mark.parametrize("x", [[np.inf, 0.0], [-np.inf, -np.inf], [-np.inf, 0.0], [np.nan, 0.0]])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_infinities_are_those_of_pytorch(name: str, x: list[float]) -> None:
    """S66: infinite elements make of softmax and its gradient what they make in PyTorch."""
    fn, t = getattr(polyop, name), torch.tensor(x, dtype=torch.float64)
    own = getattr(torch, name)
    given, axis = polyop.asarray(x), [0] if name == "logsumexp" else 0
    wanted = torch.func.grad(lambda t: own(t, 0).reshape(-1)[0])(t)
    with np.errstate(all="ignore"):
        for one in (given, polyop.from_array(t)):
            found = fn(one, axis=axis).numpy()
            np.testing.assert_allclose(found, own(t, 0))
        slope = grad(lambda v: fn(v, axis=axis).reshape((-1,))[0])(given)
        np.testing.assert_allclose(slope.numpy(), wanted)


def test_logsumexp_of_complex_numbers_is_the_principal_value() -> None:
    """S66: over every library the angle is the logarithm's own."""
    x = np.array([0, 1 - 3.7j])
    wanted = np.log(np.exp(x).sum())
    for one in (x, torch.from_numpy(x), jnp.asarray(x)):
        assert abs(polyop.logsumexp(polyop.from_array(one)).item() - wanted) < 1e-6
