"""One tensor at several places of a call is as many arguments: only some of them may move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.func import grad, hessian, jvp, linearize, vjp, vmap
from polyop.layers.autograd.paired import LARGE

BUILT_IN: dict[str, Callable[..., Any]] = {
    "add": polyop.add,
    "atan2": polyop.atan2,
    "copysign": polyop.copysign,
    "divide": polyop.divide,
    "hypot": polyop.hypot,
    "logaddexp": polyop.logaddexp,
    "maximum": polyop.maximum,
    "minimum": polyop.minimum,
    "multiply": polyop.multiply,
    "pow": polyop.pow,
    "remainder": polyop.remainder,
    "subtract": polyop.subtract,
    "vecdot": polyop.vecdot,
    "where": lambda a, b: polyop.where(a > 1.5, a * 2.0, b),
    "matmul": lambda a, b: polyop.matmul(a, b),
    "concat": lambda a, b: polyop.concat([a, b, a]),
}


def product(kind: str) -> Any:
    """Define `a * a * b`, whose gradients differ even where both are one tensor."""

    def fn(a: Tensor, b: Tensor) -> Tensor:
        return polyop.from_numpy(a.numpy() ** 2 * b.numpy())

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, g: Tensor) -> Any:
        a, b = ctx.saved_tensors
        first, second = ctx.needs_input_grad
        return 2.0 * g * a * b if first else None, g * a * a if second else None

    def tangent(ctx: Any, ta: Tensor | None, tb: Tensor | None) -> Any:
        a, b = ctx.saved_tensors
        parts = [
            2.0 * ta * a * b if ta is not None else None,
            tb * a * a if tb is not None else None,
        ]
        first, *rest = [p for p in parts if p is not None]
        return first + rest[0] if rest else first

    tags = (polyop.Tag.pointwise,) if kind == "pointwise" else ()
    op: Any = polyop.custom_op(f"same::{kind}", fn, mutates_args=(), tags=tags)
    op.register_autograd(backward, setup_context=setup)
    op.register_vmap(
        lambda info, in_dims, a, b: (op(a, b), next(d for d in in_dims if d is not None))
    )
    if kind == "jvp":
        op.register_jvp(tangent)
    return op


CUSTOM: dict[str, Callable[..., Any]] = {
    kind: product(kind) for kind in ("backward", "pointwise", "jvp")
}
OPERATORS = {**BUILT_IN, **CUSTOM}


def made(size: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    first, second = rng.uniform(1.0, 2.0, (2, size))
    return polyop.from_numpy(first), polyop.from_numpy(second)


@pytest.mark.parametrize("size", [5, LARGE])
@pytest.mark.parametrize("name", OPERATORS)
def test_forward_mode(name: str, size: int) -> None:
    """S132: where one tensor stands at two places and moves at one, the other is a constant."""
    op = OPERATORS[name]
    x, t = made(size)
    for _ in range(4):  # a loop for large arrays is asked for at the third call
        same = [jvp(lambda d: op(d, x), (x,), (t,)), jvp(lambda d: op(x, d), (x,), (t,))]
    copy = x.clone()
    apart = [jvp(lambda d: op(d, copy), (x,), (t,)), jvp(lambda d: op(copy, d), (x,), (t,))]
    for (value, slope), (other, expected) in zip(same, apart, strict=True):
        np.testing.assert_array_equal(value.numpy(), other.numpy())
        np.testing.assert_allclose(slope.numpy(), expected.numpy(), rtol=1e-14)


@pytest.mark.parametrize("name", OPERATORS)
def test_both_places_move(name: str) -> None:
    """S132: of one tensor at two places with two tangents each place has its own."""
    op = OPERATORS[name]
    x, t = made(5)
    other, copy = t * t, x.clone()
    _, slope = jvp(op, (x, x), (t, other))
    _, expected = jvp(op, (x, copy), (t, other))
    np.testing.assert_allclose(slope.numpy(), expected.numpy(), rtol=1e-14)
    _, once = jvp(lambda d: op(d, d), (x,), (t,))
    _, expected = jvp(op, (x, copy), (t, t))
    np.testing.assert_allclose(once.numpy(), expected.numpy(), rtol=1e-14)


@pytest.mark.parametrize("name", OPERATORS)
def test_other_transforms(name: str) -> None:
    """S132, S134: so it is for reverse mode, linear maps, second derivatives and batches."""
    op = OPERATORS[name]
    x, t = made(4)
    copy = x.clone()

    def total(second: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda d: polyop.sum(op(d, second) * op(second, d))

    same, apart = total(x), total(copy)
    runs: tuple[Callable[[Any], Any], ...] = (
        lambda f: grad(f)(x),
        lambda f: hessian(f)(x),
        lambda f: linearize(f, x)[1](t),
        lambda f: vjp(f, x)[1](polyop.ones((), dtype=x.dtype))[0],
        lambda f: vmap(grad(f))(polyop.stack([x, x])),
        lambda f: jvp(grad(f), (x,), (t,))[1],
    )
    for run in runs:
        np.testing.assert_allclose(run(same).numpy(), run(apart).numpy(), rtol=1e-13)


@pytest.mark.parametrize("name", OPERATORS)
def test_recorded(name: str) -> None:
    """S126: a tensor that requires grad beside its detached self gets the gradient of its place."""
    op = OPERATORS[name]
    x, t = made(4)
    mine = x.clone().requires_grad_()
    for first in (True, False):
        found = polyop.autograd.grad(
            polyop.sum(op(mine, mine.detach()) if first else op(mine.detach(), mine)), mine
        )
        expected = grad(lambda d: polyop.sum(op(d, x) if first else op(x, d)))(x)
        assert found[0] is not None
        np.testing.assert_allclose(found[0].numpy(), expected.numpy(), rtol=1e-14)
