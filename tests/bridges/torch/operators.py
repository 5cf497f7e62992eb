"""Operators that the tests of the bridge share, each with an oracle made of PyTorch's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

import polyop
from polyop import Tensor

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
crop: Any = import_module("crop").crop
paste: Any = import_module("crop").paste
nonzero: Any = import_module("nonzero").nonzero
sine: Any = import_module("sine").sine
solve_tridiagonal: Any = import_module("solve").solve_tridiagonal


@polyop.custom_op("bridge_tests::sin", mutates_args=())
def sin(x: Tensor) -> Tensor:
    """A sine whose gradient is made of operators."""
    return polyop.from_numpy(np.asarray(np.sin(x.numpy())))


@sin.register_fake
def sin_fake(x: Any) -> Any:
    return polyop.empty_like(x)


def sin_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])


def sin_backward(ctx: Any, grad: Any) -> Any:
    return grad * polyop.cos(ctx.saved_tensors[0])


sin.register_autograd(sin_backward, setup_context=sin_setup)


@polyop.custom_op("bridge_tests::cube", mutates_args=())
def cube(x: Tensor) -> Tensor:
    """A cube with rules for everything; its gradient calls an operator of the author's."""
    return polyop.from_numpy(np.asarray(x.numpy() ** 3))


@cube.register_fake
def cube_fake(x: Any) -> Any:
    return polyop.empty_like(x)


def cube_setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.x = inputs[0]
    ctx.save_for_forward(inputs[0])


cube.register_autograd(lambda ctx, grad: 3.0 * grad * ctx.x * ctx.x, setup_context=cube_setup)
cube.register_jvp(lambda ctx, t: 3.0 * t * ctx.x * ctx.x)
cube.register_vmap(lambda info, in_dims, x: (cube(x), in_dims[0]))
polyop.library.register_autocast(cube, "cpu", "bfloat16")


@polyop.custom_op("bridge_tests::mix", mutates_args=())
def mix(
    xs: Sequence[Tensor], w: Tensor | None, k: float = 2.0, *, mode: str = "sum"
) -> tuple[Tensor, Sequence[Tensor]]:
    """The sum of some tensors times `k` and `w`, and each times `k`."""
    total = polyop.sum(polyop.stack(list(xs)), axis=0)
    return total * k * (1.0 if w is None else w), [x * k for x in xs]


@mix.register_fake
def mix_fake(xs: Any, w: Any, k: float = 2.0, *, mode: str = "sum") -> Any:
    return polyop.empty_like(xs[0]), [polyop.empty_like(x) for x in xs]


def mix_setup(ctx: Any, inputs: Any, keyword_only_inputs: Any, output: Any) -> None:
    xs, ctx.w, ctx.k = inputs
    ctx.xs = list(xs)


def mix_backward(ctx: Any, grad: Any, grads: Any) -> Any:
    w = 1.0 if ctx.w is None else ctx.w
    each = [grad * ctx.k * w + (0.0 if g is None else g * ctx.k) for g in grads]
    total = polyop.sum(polyop.stack(ctx.xs), axis=0)
    return each, None if ctx.w is None else polyop.sum(grad * ctx.k * total), None


mix.register_autograd(mix_backward, setup_context=mix_setup)


def mix_oracle(xs: Any, w: Any, k: float = 2.0) -> Any:
    return torch.stack(xs).sum(0) * k * (1.0 if w is None else w), [x * k for x in xs]


@polyop.custom_op("bridge_tests::double", mutates_args=())
def double(x: Tensor) -> Tensor:
    """An operator that has a kernel and nothing else."""
    return polyop.from_numpy(np.asarray(x.numpy() * 2))
