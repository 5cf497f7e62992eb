"""A custom operator with all its rules, for programs of the laws."""

from __future__ import annotations

from typing import Any

import polyop
from polyop import Tensor


@polyop.custom_op("laws::wave", mutates_args=())
def wave(a: Tensor, b: Tensor) -> Tensor:
    """Give `sin(a) * b`."""
    return polyop.sin(a) * b


def _fake(a: Tensor, b: Tensor) -> Tensor:
    return polyop.zeros_like(a * b)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)
    ctx.save_for_forward(*inputs)


def _backward(ctx: Any, grad: Any) -> Any:
    a, b = ctx.saved_tensors
    along_a, along_b = grad * a.cos() * b, grad * a.sin()
    return along_a.sum_to(a.shape), along_b.sum_to(b.shape)


def _jvp(ctx: Any, da: Any, db: Any) -> Any:
    a, b = ctx.saved_tensors
    along_a = None if da is None else a.cos() * b * da
    along_b = None if db is None else a.sin() * db
    return along_b if along_a is None else along_a if along_b is None else along_a + along_b


def _vmap(info: Any, in_dims: Any, a: Tensor, b: Tensor) -> Any:
    rank = max(t.ndim - (d is not None) for t, d in zip((a, b), in_dims, strict=True))
    return wave(_lined(a, in_dims[0], rank), _lined(b, in_dims[1], rank)), 0


def _lined(t: Tensor, axis: int | None, rank: int) -> Tensor:
    if axis is None:
        return t
    t = polyop.moveaxis(t, axis, 0)
    return t.reshape(t.shape[0], *[1] * (rank - t.ndim + 1), *t.shape[1:])


wave.register_fake(_fake)
wave.register_autograd(_backward, setup_context=_setup)
wave.register_jvp(_jvp)
wave.register_vmap(_vmap)
