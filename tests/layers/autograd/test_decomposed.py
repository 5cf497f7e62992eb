"""Operators that only say what they are made of: gradients, batches, traces and programs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tests.layers.author_signatures import same, tensors

import polyop
from polyop import Tensor, autograd, func
from polyop.checking.law import LAWS
from polyop.errors import (
    DuplicateRegistrationError,
    MissingGradientError,
    OpCheckError,
    PerformanceWarning,
)
from polyop.graph import make_fx
from polyop.library import custom_op, get_decompositions, opcheck, register_decomposition

CALLS: list[str] = []


@custom_op("madeof::silu", mutates_args=())
def silu(x: Tensor) -> Tensor:
    """Compute `x * sigmoid(x)`, unseen."""
    CALLS.append("kernel")
    a = x.numpy()
    return polyop.from_numpy(a / (1 + np.exp(-a)))


silu.register_fake(lambda x: polyop.empty_like(x))


@silu.register_decomposition
def silu_parts(x: Tensor) -> Tensor:
    """Compute the same with operators of the Array API."""
    CALLS.append("parts")
    return x / (1.0 + polyop.exp(-x))


@dataclass
class Norm:
    """What `both` normalises with."""

    weight: Tensor
    bias: Tensor | None = None
    eps: float = 1e-3


def both_parts(xs: list[Tensor], p: Norm, *, shift: Tensor) -> tuple[Tensor, int, list[Tensor]]:
    """Compute several results of nested arguments."""
    total = xs[0] * p.weight + xs[1] + p.eps
    total = total if p.bias is None else total + p.bias
    return total, len(xs), [x * shift for x in xs]


@custom_op("madeof::both", mutates_args=())
def both(xs: list[Tensor], p: Norm, *, shift: Tensor) -> tuple[Tensor, int, list[Tensor]]:
    """Compute the same, unseen."""
    return both_parts(xs, p, shift=shift)


both.register_decomposition(both_parts)
both.register_fake(both_parts)


def joined(fn: Any) -> Any:
    """Give a function of tensors only."""

    def run(a: Tensor, b: Tensor, w: Tensor, s: Tensor) -> Tensor:
        out, count, more = fn([a, b], Norm(w), shift=s)
        return out * more[0] + more[1] * float(count)

    return run


PAIRS = [(silu, silu_parts, 1), (joined(both), joined(both_parts), 4)]


def total(f: Any) -> Any:
    """Sum what a function gives."""
    return lambda *args: f(*args).sum()


@pytest.mark.parametrize(("op", "parts", "count"), PAIRS)
def test_gradients_are_those_of_the_decomposition(op: Any, parts: Any, count: int) -> None:
    """S199, S129: without a rule, gradients of all kinds go through the decomposition."""
    args, places = tensors(count, 3), tuple(range(count))
    same(func.grad(total(op), places)(*args), func.grad(total(parts), places)(*args))
    moves = tensors(count, 3, seed=1)
    same(func.jvp(op, args, moves), func.jvp(parts, args, moves))
    leaves = [x.clone().requires_grad_() for x in args]
    found = autograd.grad(op(*leaves).sum(), leaves)
    same(found, func.grad(total(parts), places)(*args))
    assert not any(g.requires_grad for g in found)
    assert autograd.gradgradcheck(op, tuple(leaves))
    batches = tensors(count, 4, 3)
    vmapped = func.vmap(func.grad(total(op), places))(*batches)
    same(vmapped, func.vmap(func.grad(total(parts), places))(*batches))


@pytest.mark.parametrize(("op", "parts", "count"), PAIRS)
def test_batches_are_those_of_the_decomposition(op: Any, parts: Any, count: int) -> None:
    """S157: without a rule a batch runs the decomposition once, and warns of no loop."""
    batches = tensors(count, 4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PerformanceWarning)
        same(func.vmap(op)(*batches), func.vmap(parts)(*batches))


def test_the_kernel_runs_forward() -> None:
    """S199: the decomposition is for whoever sees through; a plain call runs the kernel."""
    (x,) = tensors(1, 3)
    CALLS.clear()
    silu(x)
    out = silu(x.requires_grad_())
    assert CALLS == ["kernel", "kernel"]
    out.sum().backward()
    assert CALLS == ["kernel", "kernel", "parts"]


def test_traces_and_programs_see_through() -> None:
    """S199, S209, S213: with a table a graph holds the parts; without, the operator itself."""
    (x,) = tensors(1, 3)
    table = get_decompositions([silu])
    assert "madeof.silu" in str(make_fx(silu)(x).graph)
    seen = make_fx(silu, decomposition_table=table)(x)
    assert "madeof.silu" not in str(seen.graph)
    same(seen(x), silu(x))
    program = polyop.export.export(lambda x: silu(x) * 2.0, (x,))
    assert "madeof.silu" in str(program.graph)
    lower = program.run_decompositions(table)
    assert "madeof.silu" not in str(lower.graph)
    same(lower.module()(x), silu(x) * 2.0)
    same(polyop.compile(silu, fullgraph=True)(x), silu(x))


def test_rules_go_before_the_decomposition() -> None:
    """S124, S155, S129: what an author registers is used, `None` included."""

    @custom_op("madeof::ruled", mutates_args=())
    def ruled(x: Tensor) -> Tensor:
        return x * 2.0

    (x,) = tensors(1, 3)
    with pytest.raises(MissingGradientError):
        func.grad(total(ruled))(x)
    ruled.register_decomposition(lambda x: x * 2.0)
    same(func.grad(total(ruled))(x), x * 0.0 + 2.0)
    ruled.register_autograd(lambda ctx, g: g * 7.0)
    same(func.grad(total(ruled))(x), x * 0.0 + 7.0)
    ruled.register_vmap(lambda info, dims, x: (x * 5.0, dims[0]))
    same(func.vmap(ruled)(x), x * 5.0)
    ruled.register_autograd(None)
    assert not ruled(x.requires_grad_()).requires_grad


def test_a_table_of_ones_own_derives_nothing() -> None:
    """S199: a decomposition in another registry is for who takes that table."""

    @custom_op("madeof::apart", mutates_args=())
    def apart(x: Tensor) -> Tensor:
        return x * 2.0

    table: dict[Any, Any] = {}
    register_decomposition(apart, registry=table)(lambda x: x * 2.0)
    with pytest.raises(MissingGradientError):
        func.grad(total(apart))(tensors(1, 3)[0])


def test_a_second_decomposition() -> None:
    """S199: another one is refused; the same lines, read again, take the place of the first."""

    @custom_op("madeof::again", mutates_args=())
    def again(x: Tensor) -> Tensor:
        return x * 2.0

    lines = "def parts(x):\n    return x * 2.0\n"
    for _ in range(2):
        scope: dict[str, Any] = {}
        exec(compile(lines, "again.py", "exec"), scope)  # noqa: S102 - as a reload does
        again.register_decomposition(scope["parts"])
    with pytest.raises(DuplicateRegistrationError, match="madeof::again"):
        again.register_decomposition(lambda x: x + x)


def test_the_law_of_decompositions() -> None:
    """S200: opcheck compares the kernel with what it is said to be made of."""
    x = tensors(1, 3)[0].requires_grad_()
    assert opcheck(silu, (x,))["test_decomposition"] == "SUCCESS"

    @custom_op("madeof::dtype", mutates_args=())
    def dtype(x: Tensor) -> Tensor:
        return x * 2.0

    dtype.register_decomposition(lambda x: polyop.astype(x, polyop.float32) * 2.0)
    with pytest.raises(OpCheckError, match="the result of the decomposition") as caught:
        opcheck(dtype, (x.detach(),), test_utils="test_decomposition")
    assert "float32" in str(caught.value)
    assert "test_decomposition" in LAWS
