"""Operators that keep every law."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.dispatch.custom_op import custom_op
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, of_array


@custom_op("right::scaled", mutates_args=(), tags=(Tag.pointwise,))
def scaled(x: Tensor, y: Tensor, bias: Tensor | None = None, factor: float = 2.0) -> Tensor:
    """Multiply, scale, and add a bias."""
    result = x.numpy() * y.numpy() * x.dtype.type(factor)
    return of_array(result if bias is None else result + bias.numpy())


@scaled.register_fake
def scaled_fake(x: Tensor, y: Tensor, bias: Tensor | None = None, factor: float = 2.0) -> Tensor:
    product = x * y
    return product if bias is None else product + bias


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])
    ctx.factor = inputs[3]


def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, y = ctx.saved_tensors
    return g * y * ctx.factor, g * x * ctx.factor, g if ctx.needs_input_grad[2] else None, None


scaled.register_autograd(backward, setup_context=setup_context)
scaled.register_autocast("cpu", "float16")


@scaled.register_decomposition
def scaled_parts(x: Tensor, y: Tensor, bias: Tensor | None = None, factor: float = 2.0) -> Tensor:
    product = x * y * factor
    return product if bias is None else product + bias


@scaled.samples
def scaled_samples() -> list[tuple[Any, ...]]:
    x = np.linspace(0.1, 1.0, 6).reshape(2, 3)
    return [
        (of_array(x).requires_grad_(), of_array(x + 1).requires_grad_()),
        (of_array(x), of_array(x + 1), of_array(x * 3), 0.5),
    ]


@custom_op("right::running", mutates_args=(), index="(n)->(n)")
def running(x: Tensor) -> Tensor:
    """Sum up along the last axis."""
    return of_array(np.cumsum(x.numpy(), axis=-1, dtype=x.dtype))


@running.register_fake
def running_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@running.register_vmap
def running_vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
    return running(x.movedim(in_dims[0], 0)), 0


running_samples = [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]


@custom_op("right::halve_", mutates_args=("x",))
def halve_(x: Tensor) -> None:
    """Halve in place."""
    x.numpy()[...] *= 0.5


halve_.register_fake(lambda x: None)

SAMPLES = {halve_: [(of_array(np.linspace(0.1, 1.0, 6).reshape(2, 3)),)]}
