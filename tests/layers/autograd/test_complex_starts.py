"""Where gradients begin and which Jacobians are whole: complex numbers have two directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor, autograd, func
from polyop.errors import AutogradError

REAL, COMPLEX = np.array([1.5, -0.5]), np.array([1 + 2j, -0.5j])


def turned(z: Any) -> Any:
    return z * z * (1 + 2j)


def backward(z: Tensor) -> None:
    turned(z.requires_grad_()).sum().backward()


BEGINNINGS: dict[str, Callable[[Tensor], Any]] = {
    "backward": backward,
    "backward of a row": lambda z: turned(z.requires_grad_())[:1].backward(),
    "autograd.backward": lambda z: autograd.backward([turned(z.requires_grad_()).sum()]),
    "autograd.grad": lambda z: autograd.grad(turned(z.requires_grad_()).sum(), z),
    "func.grad": lambda z: func.grad(lambda z: turned(z).sum())(z),
    "func.value_and_grad": lambda z: func.value_and_grad(lambda z: turned(z).sum())(z),
    "jacrev": lambda z: func.jacrev(turned)(z),
    "hessian": lambda z: func.hessian(lambda z: turned(z).sum())(z),
}


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
@pytest.mark.parametrize("values", [REAL, COMPLEX], ids=["real", "complex"])
def test_no_gradient_begins_at_a_complex_result(begin: Any, values: Any) -> None:
    """S134, S138: the gradient of its real part alone is not given for it; PyTorch refuses too."""
    with pytest.raises(AutogradError, match="complex"):
        begin(polyop.from_numpy(values.copy()))
    with pytest.raises(RuntimeError, match="real scalar"):
        turned(torch.tensor(values, requires_grad=True)).sum().backward()


def test_what_is_given_goes_back() -> None:
    """S138: with a gradient of its own, a complex result has what PyTorch gives."""
    z, t = polyop.from_numpy(COMPLEX).requires_grad_(), torch.tensor(COMPLEX, requires_grad=True)
    turned(z).backward(polyop.from_numpy(COMPLEX))
    turned(t).backward(torch.tensor(COMPLEX))
    assert z.grad is not None and t.grad is not None
    assert np.allclose(z.grad.tolist(), t.grad.tolist())


def test_jacobians_that_are_whole() -> None:
    """S134: forward mode of real inputs, reverse mode of real results."""
    wanted = jax.jacfwd(turned)(jnp.array(REAL, "float32"))
    got = func.jacfwd(turned)(polyop.from_numpy(REAL.astype("float32")))
    assert np.allclose(got.tolist(), wanted)
    rows = func.jacrev(lambda z: polyop.real(z * polyop.conj(z)))(polyop.from_numpy(COMPLEX))
    assert np.allclose(rows.tolist(), np.diag(2 * COMPLEX))
    with pytest.raises(AutogradError, match="jacfwd takes real steps, and input 0 is complex"):
        func.jacfwd(turned)(polyop.from_numpy(COMPLEX))
    with pytest.raises(AutogradError, match="jacrev takes real steps, and result 0 is complex"):
        func.jacrev(turned)(polyop.from_numpy(REAL))
