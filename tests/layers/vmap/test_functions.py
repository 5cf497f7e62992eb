"""`autograd.Function` under vmap: its own rule, or one made of its methods (S137)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop.errors import MissingRuleError, VmapError
from polyop.func import grad
from polyop.tensor.tensor import of_array

X = np.random.default_rng(0).normal(size=(3, 4))
Y = np.random.default_rng(1).normal(size=4)


def product(lib: Any) -> Any:
    """Give a Function with two inputs, two results and an attribute, in either library."""

    class Product(lib.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Any, y: Any, scale: float) -> Any:
            return x * y * scale, x.sum()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            x, y, ctx.scale = inputs
            ctx.save_for_backward(x, y)

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            x, y = ctx.saved_tensors
            # Not the true gradient, so that nobody can come by it in another way.
            return g * y * ctx.scale * 2 + h, (g * x).sum() * y, None

    return Product


def total(lib: Any, x: Any, y: Any) -> Any:
    a, b = product(lib).apply(x, y, 3.0)
    return (a * a).sum() + b * b


@pytest.mark.parametrize("in_dims", [(0, None), (0, 0), (None, 0), (1, None)])
def test_the_generated_rule_is_the_loop(in_dims: Any) -> None:
    """S137: results and gradients under vmap are those of PyTorch's loop, wherever the batch is."""
    # The loop: for a result that no sample changes, torch.vmap counts its gradient once too often.
    args = [{0: X, 1: X.T.copy(), None: Y}[d] for d in in_dims]

    def looped(x: Any, y: Any) -> Any:
        rows = [z if d is None else z.unbind(d) for z, d in zip((x, y), in_dims, strict=True)]
        pairs = [
            (r if d is None else r[i]) for i in range(3) for r, d in zip(rows, in_dims, strict=True)
        ]
        return torch.stack([total(torch, *pairs[2 * i : 2 * i + 2]) for i in range(3)])

    def mapped(x: Any, y: Any) -> Any:
        return polyop.vmap(lambda x, y: total(polyop, x, y), in_dims)(x, y)

    theirs, ours = [torch.tensor(z) for z in args], [of_array(z) for z in args]
    np.testing.assert_allclose(np.asarray(mapped(*ours)), looped(*theirs).numpy())
    for argnum in (0, 1):
        expected = torch.func.grad(lambda x, y: looped(x, y).sum(), argnum)(*theirs)
        found = grad(lambda x, y: mapped(x, y).sum(), argnum)(*ours)
        np.testing.assert_allclose(np.asarray(found), expected.numpy())


def test_nested_and_inside() -> None:
    """S137: in two vmaps, and with the gradient inside, it is the loop."""
    x = of_array(np.random.default_rng(2).normal(size=(2, 3, 4)))
    one = grad(lambda row: total(polyop, row, of_array(Y)))
    nested = polyop.vmap(polyop.vmap(one))(x)
    looped = np.stack([[np.asarray(one(row)) for row in rows] for rows in x])
    np.testing.assert_allclose(np.asarray(nested), looped)


def test_its_own_rule() -> None:
    """S137: a static method vmap gets the axes, and says where results have them."""
    seen: list[Any] = []

    class Double(polyop.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return x * 2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Any) -> Any:
            seen.append((info.batch_size, in_dims))
            return Double.apply(x), in_dims[0]

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 5

    x = of_array(X)
    assert np.array_equal(polyop.vmap(Double.apply, in_dims=1, out_dims=1)(x), X * 2)
    assert seen == [(4, (1,))]
    found = grad(lambda x: polyop.vmap(Double.apply)(x).sum())(x)
    assert np.array_equal(found, np.full((3, 4), 5.0))


def test_without_a_rule() -> None:
    """S137: without a rule, with both, or with a result of another form, the error says so."""

    class Base(polyop.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return x * 2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

    with pytest.raises(MissingRuleError, match=r"Base has no vmap rule[\s\S]*generate_vmap_rule"):
        polyop.vmap(Base.apply)(of_array(X))

    class Both(Base):
        generate_vmap_rule = True

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Any) -> Any:
            return x

    with pytest.raises(VmapError, match="Both has a vmap method and generate_vmap_rule"):
        polyop.vmap(Both.apply)(of_array(X))

    class One(Both):
        generate_vmap_rule = False

    with pytest.raises(VmapError, match=r"One.vmap gives two values"):
        polyop.vmap(One.apply)(of_array(X))

    class Writes(Base):
        generate_vmap_rule = True

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.mark_dirty(inputs[0])

    with pytest.raises(VmapError, match="no generated vmap rule"):
        polyop.vmap(Writes.apply)(of_array(X))
