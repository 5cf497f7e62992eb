"""Operators for the tests of the JAX bridge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import polyop
from polyop import Tensor

RUNS: list[str] = []


@polyop.custom_op("jaxtest::sin", mutates_args=())
def sin(x: Tensor, k: float = 1.0) -> Tensor:
    assert type(x.numpy()) is np.ndarray
    RUNS.append("sin")
    return polyop.from_numpy(np.asarray(np.sin(x.numpy() * x.dtype.type(k))))


@polyop.custom_op("jaxtest::cos", mutates_args=())
def cos(x: Tensor, k: float = 1.0) -> Tensor:
    return polyop.from_numpy(np.asarray(np.cos(x.numpy() * x.dtype.type(k))))


for op in (sin, cos):
    op.register_fake(lambda x, k=1.0: polyop.empty_like(x))
    op.register_vmap(lambda info, dims, x, k, op=op: (op(x, k), dims[0]))


def keep(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])
    ctx.k = inputs[1]


def sin_backward(ctx, grad):
    (x,) = ctx.saved_tensors
    return grad * cos(x, ctx.k) * ctx.k, None


def cos_backward(ctx, grad):
    (x,) = ctx.saved_tensors
    return -grad * sin(x, ctx.k) * ctx.k, None


sin.register_autograd(sin_backward, setup_context=keep)
cos.register_autograd(cos_backward, setup_context=keep)


@polyop.custom_op("jaxtest::blend", mutates_args=())
def blend(
    parts: Sequence[Tensor], mask: Tensor | None, *, weight: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Sum the parts, with a weight and a mask; and count the parts that are > 0."""
    arrays = [p.numpy() for p in parts]
    whole = sum(arrays) * arrays[0].dtype.type(weight)
    if mask is not None:
        whole = whole * mask.numpy()
    count = sum((a > 0).astype(np.int32) for a in arrays)
    return polyop.from_numpy(np.asarray(whole)), polyop.from_numpy(np.asarray(count))


@blend.register_fake
def blend_fake(parts, mask, *, weight=0.5):
    return polyop.empty_like(parts[0]), polyop.empty(parts[0].shape, dtype=polyop.int32)


def blend_setup(ctx, inputs, keyword_only_inputs, output):
    parts, mask = inputs
    ctx.save_for_backward(mask, *parts)
    ctx.weight = keyword_only_inputs["weight"]
    ctx.mark_non_differentiable(output[1])


def blend_backward(ctx, grad, _):
    mask, *parts = ctx.saved_tensors
    g = grad * ctx.weight
    whole = None
    if mask is not None:
        whole = sum(parts[1:], parts[0]) * g
        g = g * mask
    return [g if need else None for need in ctx.needs_input_grad[0]], whole


blend.register_autograd(blend_backward, setup_context=blend_setup)


@polyop.custom_op("jaxtest::square", mutates_args=())
def square(z: Tensor) -> Tensor:
    return polyop.from_numpy(z.numpy() ** 2)


square.register_fake(lambda z: polyop.empty_like(z))
square.register_autograd(
    lambda ctx, g: g * (2 * ctx.saved_tensors[0]).conj(),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


@polyop.custom_op("jaxtest::exp", mutates_args=())
def exp(x: Tensor) -> Tensor:
    """It has a `jvp`, and nothing else."""
    return polyop.from_numpy(np.exp(x.numpy()))


exp.register_fake(lambda x: polyop.empty_like(x))


@exp.register_jvp
def exp_jvp(ctx, tangent):
    return exp(ctx.saved) * tangent


def exp_setup(ctx, inputs, output):
    (ctx.saved,) = inputs


exp.register_autograd(None, setup_context=exp_setup)

exp_with_both = polyop.custom_op("jaxtest::exp_with_both", exp._init_fn, mutates_args=())
exp_with_both.register_fake(lambda x: polyop.empty_like(x))
MODES: list[str] = []


def both_setup(ctx, inputs, output):
    ctx.save_for_backward(output)
    ctx.save_for_forward(inputs[0])


def both_backward(ctx, grad):
    MODES.append("backward")
    return grad * ctx.saved_tensors[0]


@exp_with_both.register_jvp
def both_jvp(ctx, tangent):
    MODES.append("jvp")
    return exp_with_both(ctx.saved_tensors[0]) * tangent


exp_with_both.register_autograd(both_backward, setup_context=both_setup)


@polyop.custom_op("jaxtest::add_to", mutates_args={"out"})
def add_to(x: Tensor, out: Tensor) -> None:
    out.numpy()[...] += x.numpy()


@polyop.custom_op("jaxtest::nonzero", mutates_args=())
def nonzero(x: Tensor) -> Tensor:
    return polyop.from_numpy(np.flatnonzero(x.numpy()))


@nonzero.register_fake
def nonzero_fake(x):
    size = polyop.library.get_ctx().new_dynamic_size()
    return x.new_empty([size], dtype=polyop.int64)


nonzero.register_autograd(None)


every = polyop.custom_op(
    "jaxtest::every",
    lambda x, k, n, flag, text, row, nothing, z: polyop.from_numpy(x.numpy().copy()),
    mutates_args=(),
    schema="(Tensor x, float k, int n, bool flag, str text, float[] row, int? nothing, Scalar z) "
    "-> Tensor",
)
convert = polyop.custom_op(
    "jaxtest::convert",
    lambda x, dtype, device: polyop.from_numpy(x.numpy().astype(dtype)),
    mutates_args=(),
    schema="(Tensor x, ScalarType dtype, Device device) -> Tensor",
)
convert.register_fake(lambda x, dtype, device: x.new_empty(x.shape, dtype=dtype))
