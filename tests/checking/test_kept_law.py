"""The law of gradients: what is kept for backward is each call's own, and seen when written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.checking.test_gradient_corners import breaks, define, holds, save_inputs, values

import polyop as p
from polyop.tensor.tensor import Tensor, of_array


def power(x: Tensor, n: float = 2.0) -> Tensor:
    return of_array(x.numpy() ** n)


def slope(x: Tensor, n: float) -> Tensor:
    found: Tensor = x ** (n - 1) * n
    return found


@pytest.mark.parametrize("what", ["x", "n", "shape"])
def test_state_outside_of_ctx_is_told(what: str) -> None:
    """S125: what backward needs is kept by each call for itself, not by the last one."""
    kept: dict[str, Any] = {}

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.n = inputs[1]
        kept.update(x=inputs[0], n=inputs[1], shape=inputs[0].shape)

    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        x = kept["x"] if what == "x" else x
        found = g * slope(x, kept["n"] if what == "n" else ctx.n)
        return found.reshape(kept["shape"] if what == "shape" else x.shape), None

    said = "fails where another call" if what == "shape" else "another call came between"
    breaks(said, define(power, backward, setup), values(2, 3))


def test_state_in_ctx_passes() -> None:
    """S125: the twin that keeps the same in ctx holds the law."""

    def backward(ctx: Any, g: Tensor) -> Any:
        return g * slope(ctx.saved_tensors[0], *ctx.rest), None

    holds(define(power, backward, save_inputs), values(2, 3))


def exp(x: Tensor) -> Tensor:
    return of_array(np.exp(x.numpy()))


def keep_input(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.kept = inputs[0]


def keep_copy(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.kept = p.exp(inputs[0])


def keep_output(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.kept = output


def test_a_written_argument_is_told() -> None:
    """S125: a tensor that is kept in ctx itself is silently the written one."""
    x = of_array(np.ones(1)).requires_grad_()
    op = define(exp, lambda ctx, g: g * p.exp(ctx.kept), keep_input)
    held = x * 1
    result = op(held)
    held.mul_(3.0)
    result.sum().backward()
    assert x.grad is not None and np.isclose(x.grad.item(), np.exp(3.0))  # not e
    breaks("silently another when 'x' is written before backward", op, values(2, 3))


def test_a_written_result_is_told() -> None:
    """S125: so is a result."""
    op = define(exp, lambda ctx, g: g * ctx.kept, keep_output)
    breaks("silently another when 'the result' is written before backward", op, values(2, 3))


def test_what_is_saved_or_copied_passes() -> None:
    """S125: what is saved says that it was written; a copy stays as it was."""
    saved = define(exp, lambda ctx, g: g * p.exp(ctx.saved_tensors[0]), save_inputs)
    holds(saved, values(2, 3))
    holds(define(exp, lambda ctx, g: g * ctx.kept, keep_copy), values(2, 3))


def test_written_indices_are_told() -> None:
    """S125: tensors that have no gradient are written too."""

    def pick(x: Tensor, at: Tensor) -> Tensor:
        return of_array(x.numpy()[at.numpy()])

    def spread(g: Tensor, at: Tensor) -> Any:
        rows = p.arange(4)
        return p.sum(p.where(rows[:, None] == at, g, 0.0), axis=1), None

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.at = inputs[1]

    def save(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    at = of_array(np.array([3, 0, 2]))
    kept = define(pick, lambda ctx, g: spread(g, ctx.at), keep)
    breaks("when 'at' is written before backward", kept, values(4), at)
    saved = define(pick, lambda ctx, g: spread(g, ctx.saved_tensors[0]), save)
    holds(saved, values(4), at)


def test_a_view_is_written_with_its_argument() -> None:
    """S125: a result that is its argument's memory changes with it, and is not compared."""
    op = p.custom_op(
        "corners::view", lambda x: x[1:], schema="(Tensor(a) x) -> Tensor(a)", mutates_args=()
    )

    def backward(ctx: Any, g: Tensor) -> Tensor:
        return p.concat([p.zeros((1, *g.shape[1:]), dtype=g.dtype), g])

    op.register_autograd(backward)
    holds(op, values(3, 2))
