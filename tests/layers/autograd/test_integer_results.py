"""Results without a gradient: whole numbers and truth values, however they were made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor
from polyop.func import grad, jvp

CASTS: dict[str, Callable[[Any], Any]] = {
    "astype": lambda x: x.astype(polyop.int64),
    "astype bool": lambda x: polyop.astype(x, polyop.bool),
    "to": lambda x: x.to(polyop.int32),
    "int": lambda x: x.int(),
    "long": lambda x: x.long(),
    "bool": lambda x: x.bool(),
    "asarray": lambda x: polyop.asarray(x, dtype=polyop.int64, copy=True),
    "sum": lambda x: polyop.sum(x, dtype=polyop.int64),
    "prod": lambda x: polyop.prod(x, dtype=polyop.int64),
    "cumulative_sum": lambda x: polyop.cumulative_sum(x, dtype=polyop.int64),
    "cumulative_prod": lambda x: polyop.cumulative_prod(x, dtype=polyop.int64),
    "trace": lambda x: polyop.linalg.trace(x * polyop.ones((2, 2)), dtype=polyop.int64),
    "floor and cast": lambda x: polyop.floor(x).astype(polyop.int8),
}


@pytest.mark.parametrize("name", CASTS)
def test_casts_end_the_history(name: str) -> None:
    """S129: a result that is no float requires no grad, recorded by one frame or by a transform."""
    cast = CASTS[name]
    x = polyop.from_numpy(np.array([1.7, 2.7])).requires_grad_()
    whole = cast(x)
    assert whole.dtype.kind in "iub"
    assert not whole.requires_grad
    assert whole.grad_fn is None

    def f(x: Tensor) -> Tensor:
        out: Tensor = polyop.sum(cast(x) * 0.5 * x)
        return out

    (found,) = polyop.autograd.grad(f(x), x)
    expected = grad(f)(x.detach())
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    along = jvp(f, (x.detach(),), (polyop.ones(2, dtype=x.dtype),))[1]
    assert float(along) == pytest.approx(float(polyop.sum(expected)), rel=1e-14)


def test_no_gradient_goes_straight_through() -> None:
    """S129: as in PyTorch, `x.to(int) * x` has the gradient of the second factor alone."""
    x, t = polyop.tensor([1.7, 2.7]).requires_grad_(), torch.tensor([1.7, 2.7], requires_grad=True)
    (found,) = polyop.autograd.grad((x.astype(polyop.int64) * x).sum(), x)
    (expected,) = torch.autograd.grad((t.to(torch.int64) * t).sum(), t)
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


# -- bfloat16, whose kind is its own ----------------------------------------------

LINEAR: dict[str, Callable[[Any], Any]] = {
    "reshape": lambda x: x.reshape([3, 2]),
    "transpose": lambda x: polyop.permute_dims(x, (1, 0)),
    "index": lambda x: x[0],
    "slice": lambda x: x[:, 1:],
    "flip": lambda x: polyop.flip(x),
    "expand_dims": lambda x: polyop.expand_dims(x, axis=0),
    "cumulative_sum": lambda x: polyop.cumulative_sum(x, axis=0),
    "tril": lambda x: polyop.tril(x),
    "real": lambda x: polyop.real(x),
    "broadcast_to": lambda x: polyop.broadcast_to(x, (2, 2, 3)),
    "concat": lambda x: polyop.concat([x, x]),
    "take": lambda x: polyop.take(x, polyop.asarray([1, 0]), axis=0),
    "double": lambda x: x + x,
    "clone": lambda x: x.clone(),
}


@pytest.mark.parametrize("dtype", [polyop.bfloat16, polyop.float16, polyop.float32])
@pytest.mark.parametrize("name", LINEAR)
def test_tangents_of_small_floats(name: str, dtype: Any) -> None:
    """S132: a linear operator's tangent is the operator of the tangent, in bfloat16 too."""
    f = LINEAR[name]
    x = polyop.ones((2, 3), dtype=dtype)
    t = polyop.astype(polyop.reshape(polyop.arange(6), (2, 3)), dtype)
    found = jvp(f, (x,), (t,))[1]
    assert found.dtype == dtype
    wide = polyop.float32
    np.testing.assert_array_equal(found.astype(wide).numpy(), f(t).astype(wide).numpy())
    assert float(polyop.max(found.astype(wide))) > 0.0


PRODUCTS: dict[str, Callable[[Any, Any], Any]] = {
    "matrices": polyop.matmul,
    "a matrix and a vector": lambda a, b: a @ b[0],
    "vectors": lambda a, b: a[0] @ b[0],
    "vecdot": polyop.vecdot,
    "tensordot": lambda a, b: polyop.tensordot(a, b, axes=1),
}


@pytest.mark.parametrize("dtype", [polyop.bfloat16, polyop.float16, polyop.float64])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_keep_the_dtype(name: str, dtype: Any) -> None:
    """S147: real and fake products have one dtype, the factors', and so have their derivatives."""
    f = PRODUCTS[name]
    a = polyop.ones((2, 2), dtype=dtype)
    out = f(a, a)
    assert out.dtype == dtype
    with polyop.fake.FakeTensorMode() as mode:
        b = mode.from_tensor(a)
        assert f(b, b).dtype == dtype
    assert grad(lambda x: polyop.sum(f(x, a)))(a).dtype == dtype
    found = jvp(lambda x: f(x, a), (a,), (a,))[1]
    assert found.dtype == dtype
    assert found.astype(polyop.float64).tolist() == out.astype(polyop.float64).tolist()
