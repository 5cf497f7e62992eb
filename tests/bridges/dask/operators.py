"""Operators for the tests of the Dask bridge, which worker processes import too."""

from __future__ import annotations

from collections.abc import Sequence

import dask.array as da
import numpy as np

import polyop
from polyop import Tensor

#: The shapes that kernels were called with.
RUNS: list[tuple[int, ...]] = []


@polyop.custom_op("dasktest::product", mutates_args=(), index="(m,k),(k,n)->(m,n)")
def product(a: Tensor, b: Tensor) -> Tensor:
    RUNS.append(tuple(a.shape))
    return polyop.from_numpy(a.numpy() @ b.numpy())


product.register_autograd(
    lambda ctx, g: (
        g @ ctx.saved_tensors[1].transpose(-2, -1),
        ctx.saved_tensors[0].transpose(-2, -1) @ g,
    ),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@polyop.custom_op("dasktest::outer", mutates_args=(), index="(m),(n)->(m,n),(m,n)")
def outer(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    x, y = a.numpy()[..., :, None], b.numpy()[..., None, :]
    return polyop.from_numpy(x * y), polyop.from_numpy(x + y)


outer.register_chunks("m", "n")


@polyop.custom_op("dasktest::moments", mutates_args=(), index="(n)->(),(2),(n,n)")
def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a = x.numpy()
    ends = np.stack([a.min(-1), a.max(-1)], -1)
    squares = a[..., :, None] * a[..., None, :]
    return tuple(polyop.from_numpy(np.asarray(r)) for r in (a.mean(-1), ends, squares))


@polyop.custom_op("dasktest::sine", mutates_args=(), tags=["pointwise"])
def sine(x: Tensor, k: float = 1.0) -> Tensor:
    RUNS.append(tuple(x.shape))
    return polyop.from_numpy(np.asarray(np.sin(x.numpy() * k)))


sine.register_fake(lambda x, k=1.0: polyop.empty_like(x))
sine.register_autograd(
    lambda ctx, g: (g * polyop.cos(ctx.saved_tensors[0] * ctx.k) * ctx.k, None),
    setup_context=lambda ctx, inputs, output: (
        ctx.save_for_backward(inputs[0]),
        setattr(ctx, "k", inputs[1]),
    ),
)


@polyop.custom_op("dasktest::cumulate", mutates_args=())
def cumulate(x: Tensor) -> Tensor:
    """Nothing says how it may be cut."""
    RUNS.append(tuple(x.shape))
    return polyop.from_numpy(np.cumsum(x.numpy(), 0))


cumulate.register_fake(lambda x: polyop.empty_like(x))


def _sizes(x):
    return x.new_empty([polyop.library.get_ctx().new_dynamic_size()], dtype=polyop.int64)


@polyop.custom_op("dasktest::nonzero", mutates_args=())
def nonzero(x: Tensor) -> Tensor:
    return polyop.from_numpy(np.flatnonzero(x.numpy()))


nonzero.register_fake(_sizes)


@polyop.custom_op("dasktest::nonzero_in_parts", mutates_args=())
def nonzero_in_parts(x: Tensor) -> Tensor:
    RUNS.append(tuple(x.shape))
    return polyop.from_numpy(np.flatnonzero(x.numpy()))


nonzero_in_parts.register_fake(_sizes)


@nonzero_in_parts.register_chunks()
def nonzero_chunks(run, x):
    starts = np.cumsum([0, *x.chunks[0]])
    return da.concatenate([run(x.blocks[i]) + starts[i] for i in range(x.numblocks[0])])


@polyop.custom_op("dasktest::add_to", mutates_args={"out"})
def add_to(x: Tensor, out: Tensor) -> None:
    out.numpy()[...] += x.numpy()


@polyop.custom_op("dasktest::noise", mutates_args=(), tags=["nondeterministic_seeded"])
def noise(x: Tensor) -> Tensor:
    return polyop.from_numpy(np.random.default_rng().normal(size=x.shape))


noise.register_fake(lambda x: polyop.empty_like(x))


@polyop.custom_op("dasktest::blend", mutates_args=())
def blend(
    parts: Sequence[Tensor], mask: Tensor | None, *, weight: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Sum the parts with a weight and a mask, and count those that are > 0."""
    arrays = [p.numpy() for p in parts]
    whole = sum(arrays) * weight
    if mask is not None:
        whole = whole * mask.numpy()
    return polyop.from_numpy(whole), polyop.from_numpy(sum((a > 0).astype("int32") for a in arrays))


@blend.register_fake
def blend_fake(parts, mask, *, weight=0.5):
    return polyop.empty_like(parts[0]), polyop.empty(parts[0].shape, dtype=polyop.int32)


@polyop.custom_op("dasktest::total", mutates_args=())
def total(x: Tensor) -> float:
    """Its result is no tensor."""
    return float(x.numpy().sum())


@polyop.custom_op("dasktest::describe", mutates_args=())
def describe(x: Tensor) -> Tensor:
    """It has no fake rule."""
    return polyop.from_numpy(np.array([x.numpy().mean(), x.numpy().max()]))


@polyop.custom_op("dasktest::wrong_size", mutates_args=(), tags=["pointwise"])
def wrong_size(x: Tensor) -> Tensor:
    return polyop.from_numpy(np.zeros(x.numel() + 1))


wrong_size.register_fake(lambda x: polyop.empty_like(x))


@polyop.custom_op("dasktest::scribble", mutates_args=(), tags=["pointwise"])
def scribble(x: Tensor) -> Tensor:
    """Its kernel writes what it only reads."""
    x.numpy()[...] = 0
    return x.clone()


scribble.register_fake(lambda x: polyop.empty_like(x))


@polyop.custom_op("dasktest::tail", mutates_args=(), schema="(Tensor(a) x) -> Tensor(a)")
def tail(x):
    """Its result is a view of its argument."""
    return polyop.from_numpy(x.numpy()[1:])


tail.register_fake(lambda x: x[1:])
