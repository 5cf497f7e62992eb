"""Operators that write their arguments, inside vmap.

A written argument must hold a value of its own for each sample. The memory is
the caller's: axes are lined up on new tensors that view it, never by moving
the axes of a tensor that somebody else holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bind import dispatch
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import run_under
from polyop.dispatch.counts import bump_in
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.results import tensors_in
from polyop.errors import VmapError
from polyop.layers.vmap.batch import VmapLevel, dims_in, peel, peel_all
from polyop.layers.vmap.loop import Call, join, loop, warn_slow
from polyop.layers.vmap.pointwise import front, line_up
from polyop.layers.vmap.rules import run_rule
from polyop.layers.vmap.shared import is_crossed, is_shared
from polyop.ops.inplace import INPLACE_TWINS, copy_
from polyop.ops.rounding import clone
from polyop.tensor.tensor import Tensor


def written(op: OpOverload) -> list[int]:
    """Give the positions of written arguments."""
    return [i for i, a in enumerate(op._schema.arguments) if a.is_write]


def check_written(
    op: OpOverload, args: Sequence[Any], values: Sequence[Any], dims: Sequence[Any]
) -> None:
    """Refuse to write several samples into one place, or past a copy that stands for a view.

    Raises:
        VmapError: a written argument is not batched while another is, or it is a view that is none.
    """
    for i in written(op):
        _refuse_copied(op, i, args[i])
        if len(dims_in(dims[i])) < len(list(tensors_in(values[i]))) and dims_in(list(dims)):
            name = op._schema.arguments[i].name
            raise VmapError(
                f"{op.name()} writes argument {name!r}, which is the same for all samples, "
                "while another argument differs from sample to sample",
                op=op._schema,
                argument=f"{name} (position {i})",
                declared="written, so batched",
                seen="not batched",
                source=op.source,
                fix=f"give {name!r} a batch axis in in_dims, or use the operator that "
                "returns a new tensor",
            )


def _refuse_copied(op: OpOverload, i: int, given: Any) -> None:
    for t in tensors_in((given,)):
        by = getattr(t.version, "copied", None)
        if by is not None:
            raise VmapError(
                f"{op.name()} writes memory of which {by.name()} gave a view inside vmap, and that "
                "is a copy: one of the two would not be written",
                op=op._schema,
                argument=f"{op._schema.arguments[i].name} (position {i})",
                source=by.source,
                fix=f"give {by.name()} a vmap rule that views the whole batch "
                "(polyop.library.register_vmap), or write before the view is taken",
            )


def run_pointwise_write(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    """Write a pointwise result into the caller's memory, with the axes lined up."""
    values, dims = peel_all(level, op, args)
    check_written(op, args, values, dims)
    if is_crossed(level, op, args):
        return loop_in_place(level, op, args)
    target = values[written(op)[0]]
    lined = line_up(values, dims, len(target.payload.shape) - 1)
    bump_written(op, args)
    run_under(level.below(), dispatch, op, lined)
    return given_back(op, args)


def run_twin_write(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    """Run the functional twin on the whole batch, and copy its result back."""
    values, dims = peel_all(level, op, args)
    check_written(op, args, values, dims)
    if is_crossed(level, op, args):
        return loop_in_place(level, op, args)
    bump_written(op, args)
    new, axis = peel(dispatch(INPLACE_TWINS[op.name()], args), level)
    i = written(op)[0]
    if dims[i] is None:  # nothing is batched here
        run_under(level.below(), copy_, values[i], new)
    else:
        run_under(level.below(), _copy_aligned, values[i], dims[i], new, axis)
    return given_back(op, args)


def _copy_aligned(target: Tensor, axis: int, new: Tensor, new_axis: int | None) -> None:
    copy_(front(target, axis), new if new_axis is None else front(new, new_axis))


def run_written_rule(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    """Run the batching rule of an operator that writes."""
    values, dims = peel_all(level, op, args)
    check_written(op, args, values, dims)
    if is_crossed(level, op, args):
        return loop_in_place(level, op, args)
    bump_written(op, args)
    return run_rule(level, op, args)


def run_written_loop(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    """Run the functional twin for each sample, and write the new values back (S159)."""
    warn_slow(op)
    return loop_of_writes(level, op, args)


def loop_of_writes(
    level: VmapLevel, op: OpOverload, args: Sequence[Any], call: Call = dispatch
) -> Any:
    """Call for each sample on copies of what is written, then write all copies back."""
    values, dims = peel_all(level, op, args)
    check_written(op, args, values, dims)
    if is_shared(level, op, args):
        return loop_in_place(level, op, args, call)
    bump_written(op, args)
    news: list[list[Any]] = []

    def twin(op: OpOverload, values: Sequence[Any]) -> Any:
        values = list(values)
        for i in written(op):
            values[i] = tree.map_leaves(_clone, values[i])
        result = call(op, values)
        news.append(_targets(op, values))
        return result

    result = loop(level, op, args, twin)
    run_under(level.below(), _write_back, op, values, dims, news)
    return result


def loop_in_place(
    level: VmapLevel, op: OpOverload, args: Sequence[Any], call: Call = dispatch
) -> Any:
    """Call for each sample in the caller's memory, so that all who share it see each write."""
    bump_written(op, args)
    return loop(level, op, args, call)


def _clone(x: Any) -> Any:
    return clone(x) if isinstance(x, Tensor) else x


def _targets(op: OpOverload, values: Sequence[Any]) -> list[Tensor]:
    """Give the tensors of written arguments; records may have other values between them."""
    return [t for i in written(op) for t in tensors_in(values[i])]


def _write_back(
    op: OpOverload, values: Sequence[Any], dims: Sequence[Any], news: Sequence[Sequence[Any]]
) -> None:
    targets = _targets(op, values)
    axes = [d for i in written(op) for d in dims_in(dims[i])]
    columns = zip(*news, strict=True)
    for target, axis, column in zip(targets, axes, columns, strict=False):
        copy_(front(target, axis), join(op, list(column)))


def bump_written(op: OpOverload, args: Sequence[Any]) -> None:
    """Count the write to each written argument."""
    for i in written(op):
        bump_in(op, args[i])


def given_back(op: OpOverload, args: Sequence[Any]) -> Any:
    """Give the results of an operator that returns what it was given."""
    done = [args[position] for _, position in result_forms(op._schema)]
    if not done:
        return None
    return done[0] if len(done) == 1 else tuple(done)
