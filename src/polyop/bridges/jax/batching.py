"""The author's batching rule on JAX's arrays; without one, one sample after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax

from polyop import tree
from polyop.bridges.jax.contexts import array_of
from polyop.bridges.jax.frames import Frame, shaped, tensor_over
from polyop.bridges.jax.results import outline
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import DynamicOutputShapeError, MissingFakeError, VmapError
from polyop.layers.vmap.batch import VmapLevel, batched, peel, plan_of
from polyop.layers.vmap.loop import run_loop, warn_slow
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor

QUIET = PLAIN.without_grad


def batch(
    bind: Callable[..., Any], operands: Sequence[Any], axes: Sequence[Any], frame: Frame
) -> tuple[list[Any], list[Any]]:
    """Run a whole batch.

    Args:
        bind: binds the operator's primitive.
        operands: all samples in each.
        axes: the axis of each that counts the samples, or None.
        frame: of the call.

    Returns:
        The results in a row, and the axis of each.

    Raises:
        VmapError: what the author's rule gave does not fit, or the operator draws random numbers.
    """
    if Tag.nondeterministic_seeded in frame.op.tags:
        _refuse_random(frame.op)
    plan = plan_of(frame.op)
    if plan is run_loop and _can_map(frame, operands, axes):
        return _mapped(bind, operands, axes, frame)
    size = next(x.shape[d] for x, d in zip(operands, axes, strict=True) if d is not None)
    done: tuple[list[Any], list[Any]] = run_under(
        QUIET, _by_level, plan, operands, axes, frame, size
    )
    return done


def _refuse_random(op: OpOverload) -> NoReturn:
    raise VmapError(
        f"{op.name()} draws random numbers inside jax.vmap, which does not say whether the samples "
        "share them",
        op=op._schema,
        source=op.source,
        fix="run the samples by jax.lax.map, where each draws its own, or draw outside of vmap",
    )


def _by_level(
    plan: Any, operands: Sequence[Any], axes: Sequence[Any], frame: Frame, size: int
) -> tuple[list[Any], list[Any]]:
    level = VmapLevel(size, "error")
    given = [
        tensor_over(x) if d is None else batched(tensor_over(x), d, level)
        for x, d in zip(operands, axes, strict=True)
    ]
    try:
        out = plan(level, frame.op, frame.values(given))
        pairs = [peel(t, level) for t in tree.leaves(out) if isinstance(t, Tensor)]
    finally:
        level.alive = False
    return [array_of(frame.op, "vmap", t) for t, _ in pairs], [d for _, d in pairs]


def _can_map(frame: Frame, operands: Sequence[Any], axes: Sequence[Any]) -> bool:
    """Tell whether JAX can compile a loop; else only code that is not compiled can run it."""
    facts = [
        x if d is None else shaped((*x.shape[:d], *x.shape[d + 1 :]), x.dtype)
        for x, d in zip(operands, axes, strict=True)
    ]
    try:
        outline(frame, facts)
    except (MissingFakeError, DynamicOutputShapeError):
        return False
    return True


def _mapped(
    bind: Callable[..., Any], operands: Sequence[Any], axes: Sequence[Any], frame: Frame
) -> tuple[list[Any], list[Any]]:
    warn_slow(frame.op)
    moving = [i for i, d in enumerate(axes) if d is not None]
    stacked = [jax.numpy.moveaxis(operands[i], axes[i], 0) for i in moving]

    def one(sample: Sequence[Any]) -> Any:
        whole = list(operands)
        for i, x in zip(moving, sample, strict=True):
            whole[i] = x
        return bind(*whole, frame=frame)

    outs = list(jax.lax.map(one, stacked))
    return outs, [0] * len(outs)
