"""Random operators inside vmap: refused, drawn for each sample, or drawn once (S160)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import FUNCTIONAL, LEVELS, LIFTED
from polyop.dispatch.context import run_under, word
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.resolve import Way
from polyop.errors import VmapError
from polyop.layers.levels import innermost
from polyop.layers.vmap.batch import VmapLevel, dims_in, peel_all
from polyop.layers.vmap.loop import loop
from polyop.layers.vmap.rules import run_rule
from polyop.layers.vmap.same import draw_again, same_draws
from polyop.layers.vmap.writes import check_written, given_back, loop_of_writes
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor


def is_random(op: OpOverload) -> bool:
    """Tell whether an operator draws random numbers."""
    return Tag.nondeterministic_seeded in op.tags


def run_random(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    """Run a random operator as the level's `randomness` says.

    Raises:
        VmapError: the vmap has `randomness="error"`.
    """
    if level.randomness == "error":
        raise VmapError(
            f"{op.name()} draws random numbers inside vmap, which does not say how",
            op=op._schema,
            source=op.source,
            fix='pass randomness="different" (each sample its own) or "same" (one for all) to vmap',
        )
    if op._schema.is_mutable:
        return _write(level, op, args)
    if level.randomness == "same":
        return _same(level, op, args)
    if op.rule("vmap") is not None and _all_batched(level, op, args):
        return run_rule(level, op, args)
    return loop(level, op, args)


def _all_batched(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> bool:
    """Tell whether every tensor has a value per sample, so that one run draws for all."""
    values, dims = peel_all(level, op, args)
    tensors = [d for v, d in zip(values, dims, strict=True) if isinstance(v, Tensor)]
    return bool(tensors) and None not in tensors


def _same(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    values, dims = peel_all(level, op, args)
    draw_again(level, values)
    if not dims_in(dims):
        return run_under(level.below(), dispatch, op, values)
    return loop(level, op, args, same_draws(values))


def _write(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    values, dims = peel_all(level, op, args)
    if level.randomness == "same":
        draw_again(level, values)
        if dims_in(dims):
            return loop_of_writes(level, op, args, same_draws(values))
        run_under(level.below(), dispatch, op, values)
        return given_back(op, args)
    # Draws differ from sample to sample, as an argument that is batched does.
    check_written(op, args, values, [*dims, 0])
    return loop_of_writes(level, op, args)


class RandomLayer:
    """Takes random operators to the innermost vmap, also if no argument is batched."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler of a random operator while some level runs."""
        if not way.code & LEVELS or way.code & (LIFTED | FUNCTIONAL) or not is_random(way.op):
            return None
        op, below = way.op, way.handler()

        def run(*args: Any) -> Any:
            level = _acting(args)
            return below(*args) if level is None else run_random(level, op, args)

        return run


def _acting(args: Sequence[Any]) -> VmapLevel | None:
    """Give the innermost vmap, of the arguments or of the context."""
    running = [x for x in word().levels if isinstance(x, VmapLevel)]
    found = innermost(args)
    if isinstance(found, VmapLevel) and found not in running:
        running.append(found)
    return max(running, key=lambda level: level.depth) if running else None
