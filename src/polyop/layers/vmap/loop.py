"""Operators without a batching rule: sample by sample, and stacked.

Slow, and right for everything. With no samples there is nothing to run, so
the results' shapes come from the operator on the device `meta`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop import tree
from polyop.devices import META
from polyop.dispatch.bind import dispatch
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import PerformanceWarning, VmapError
from polyop.layers.vmap.batch import VmapLevel, peel_all
from polyop.layers.vmap.rules import named_parts, with_parts, wrap_results
from polyop.ops.joining import stack
from polyop.ops.views import select
from polyop.tensor.meta import META_SPACE, meta_of
from polyop.tensor.tensor import Tensor, of_array, of_meta
from polyop.warn import warn_once

Call = Callable[[OpOverload, Sequence[Any]], Any]


def run_loop(level: VmapLevel, op: OpOverload, args: Sequence[Any]) -> Any:
    """Run an operator for each sample, and say once that it is slow."""
    warn_slow(op)
    return loop(level, op, args)


def warn_slow(op: OpOverload) -> None:
    """Say, once per operator, that it has no batching rule."""
    warn_once(
        PerformanceWarning,
        f"{op.name()} has no vmap rule, so vmap runs it for each sample in turn; "
        f"add a rule with polyop.library.register_vmap({op.name()!r}, rule)",
        key=("vmap", op.name()),
    )


def loop(level: VmapLevel, op: OpOverload, args: Sequence[Any], call: Call = dispatch) -> Any:
    """Run an operator for each sample with the level off, and stack the results."""
    values, dims = peel_all(level, op, args)
    output = run_under(level.below(), _stacked, level, op, values, dims, call)
    forms = result_forms(op._schema)
    if len(forms) == 1:
        return wrap_results(level, op, args, output, _stacked_axis(output))
    return wrap_results(level, op, args, output, tuple(map(_stacked_axis, output or ())))


def _stacked_axis(value: Any) -> Any:
    """Give the axis of the samples, the first, for whatever holds tensors."""
    if isinstance(value, Tensor):
        return 0
    parts = named_parts(value)
    if parts is not None:
        return {key: _stacked_axis(part) for key, part in parts.items()}
    if value.__class__ in {list, tuple}:
        return [_stacked_axis(part) for part in value]
    return None


def _stacked(
    level: VmapLevel, op: OpOverload, values: Sequence[Any], dims: Sequence[Any], call: Call
) -> Any:
    size = int(level.batch_size)
    if size == 0:
        return _of_no_samples(op, values, dims)
    outputs = [call(op, sample(values, dims, i)) for i in range(size)]
    forms = result_forms(op._schema)
    if len(forms) <= 1:
        return join(op, outputs) if forms else None
    return [join(op, list(column)) for column in zip(*outputs, strict=True)]


def sample(values: Any, dims: Any, i: int) -> list[Any]:
    """Give the arguments of one sample."""
    return [_pick(v, d, i) for v, d in zip(values, dims, strict=True)]


def _pick(value: Any, dim: Any, i: int) -> Any:
    if dim is None:
        return value
    if isinstance(dim, int):
        return select(value, dim, i)
    return _beside(value, dim, lambda v, d: _pick(v, d, i))


def _beside(value: Any, dims: Any, fn: Callable[[Any, Any], Any]) -> Any:
    """Apply `fn` to the parts of a container, and of the axes that mirror it."""
    parts = named_parts(value)
    if parts is None:
        return value.__class__(map(fn, value, dims))
    axes = named_parts(dims) or {}
    return with_parts(value, {key: fn(part, axes[key]) for key, part in parts.items()})


def join(op: OpOverload, column: list[Any]) -> Any:
    """Stack one result of all samples.

    Raises:
        VmapError: what is no tensor differs between samples, or shapes differ.
    """
    first = column[0]
    named = None if isinstance(first, Tensor) else named_parts(first)
    if named is not None:
        every = [named_parts(item) or {} for item in column]
        if any(parts.keys() != named.keys() for parts in every):
            _differ(op, "the keys of a result", [list(parts) for parts in every])
        return with_parts(first, {key: join(op, [p[key] for p in every]) for key in named})
    if isinstance(first, (list, tuple)):
        if any(len(item) != len(first) for item in column):
            _differ(op, "the number of results", [len(item) for item in column])
        return first.__class__([join(op, list(items)) for items in zip(*column, strict=True)])
    if isinstance(first, Tensor):
        if not all(isinstance(x, Tensor) for x in column):
            _differ(op, "whether there is a result", [type(x).__name__ for x in column])
        shapes = [x.shape for x in column]
        if any(s != shapes[0] for s in shapes):
            _differ(op, "the shape of a result", list(dict.fromkeys(shapes)))
        return stack(column, axis=0)
    for value in column:
        if isinstance(value, Tensor):
            _differ(op, "whether there is a result", [type(x).__name__ for x in column])
        # By text too, so that nan is equal to itself.
        if value != first and repr(value) != repr(first):
            _differ(op, "a result that is no tensor", [first, value])
    return first


def _differ(op: OpOverload, what: str, seen: Sequence[Any]) -> None:
    raise VmapError(
        f"{what} of {op.name()} differs from sample to sample inside vmap",
        op=op._schema,
        seen=", ".join(map(str, seen[:4])),
        source=op.source,
        fix="make it equal for all samples, or loop over the samples yourself",
    )


# -- no samples ---------------------------------------------------------------


def _of_no_samples(op: OpOverload, values: Sequence[Any], dims: Sequence[Any]) -> Any:
    one = [_sample_meta(v, d) for v, d in zip(values, dims, strict=True)]
    output = run_under(PLAIN, dispatch, op, one)
    forms = result_forms(op._schema)
    outputs = [output] if len(forms) == 1 else list(output or ())
    done = [tree.map_leaves(_none_of, value) for value in outputs]
    return done[0] if len(forms) == 1 else done


def _sample_meta(value: Any, dim: Any) -> Any:
    if not isinstance(value, Tensor):
        nested = dim is not None and not isinstance(dim, int)
        return _beside(value, dim, _sample_meta) if nested else value
    meta = meta_of(value, META_SPACE, META)
    if dim is not None:
        shape = (*meta.shape[:dim], *meta.shape[dim + 1 :])
        meta = META_SPACE.meta(shape, meta.dtype, None, META)
    return of_meta(meta)


def _none_of(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return of_array(np.empty((0, *value.shape), value.dtype))
