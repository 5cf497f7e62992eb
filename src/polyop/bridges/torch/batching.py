"""The author's batching rule on PyTorch's tensors, or a loop over the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from polyop.bridges.torch.arrays import QUIET, Call, array_of, each, placed
from polyop.bridges.torch.draws import again, is_random
from polyop.bridges.torch.fake import Fake
from polyop.bridges.torch.schema import TORCH
from polyop.dispatch.context import run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import VmapError
from polyop.layers.rule_notes import note_rule
from polyop.layers.vmap.batch import VmapInfo

debug_unwrap: Any = torch.func.debug_unwrap


def batched(
    info: Any, call: Call, row: Sequence[Any], dims: Sequence[Any], single: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Run a whole batch.

    Args:
        info: PyTorch's, of the vmap.
        call: the call.
        row: the tensors among its arguments, all samples in each.
        dims: the axis of each that counts the samples, or None.
        single: calls the operator for one sample: arguments to results.

    Returns:
        The results in a row, and the axis of each.

    Raises:
        VmapError: what the rule gave does not fit, or the operator draws, and the vmap does not
            say how.
    """
    rule = call.op.rule("vmap")
    if is_random(call.op) and (info.randomness != "different" or None in dims):
        return _drawn(info, call, row, dims, single)
    if rule is None:
        return _looped(info.batch_size, call, row, dims, single)
    values, axes = call.ours(row), call.mirrored(dims)
    n = len(call.op._schema.positional)
    names = [a.name for a in call.op._schema.keyword_only]
    named = dict(zip(names, values[n:], strict=True))
    about = VmapInfo(info.batch_size, info.randomness, dict(zip(names, axes[n:], strict=True)))
    try:
        given = run_under(QUIET, rule, about, tuple(axes[:n]), *values[:n], **named)
    except Exception as error:
        note_rule(error, call.op, "vmap rule")
        raise
    if not isinstance(given, tuple) or len(given) != 2:
        _refuse(call, "must return two values", "(output, out_dims)", type(given).__name__)
    out, out_dims = given
    return _results(call, out, out_dims, row[0], info.batch_size)


def _results(
    call: Call, out: Any, out_dims: Any, like: Any, size: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    forms = call.plan.forms
    results = [out] if len(forms) == 1 else list(out or ())
    whole = out_dims is None or isinstance(out_dims, int)
    alone = len(forms) == 1 and not (isinstance(out_dims, tuple) and len(out_dims) == 1)
    axes = [out_dims] * len(forms) if whole or alone else list(out_dims)
    if len(results) != len(forms) or len(axes) != len(forms):
        _refuse(call, f"must give {len(forms)} results and axes", forms, (out, out_dims))
    arrays, dims = [], []
    for result, axis, (kind, _) in zip(results, axes, forms, strict=True):
        if kind != "argument":
            arrays.append(each(lambda t: array_of(call.op, "vmap", t, like), result))
            many = isinstance(result, list | tuple) and not isinstance(axis, list | tuple)
            dims.append([axis] * len(result) if many else axis)
    row = call.in_a_row(arrays[0] if len(arrays) == 1 else arrays)
    flat = tuple(d for ds in dims for d in (ds if isinstance(ds, list | tuple) else [ds]))
    for t, d in zip(row, flat, strict=True):
        _require_axis(call, t, d, size)
    return row, flat


def _require_axis(call: Call, t: Any, axis: Any, size: Any) -> None:
    """Refuse an axis that does not count the samples; sizes that are symbols are believed."""
    if axis is None:
        return
    if not isinstance(axis, int) or not -t.ndim <= axis < t.ndim:
        _refuse(call, "gives an axis that its result has not", f"one of {t.ndim}", axis)
    found = t.shape[axis]
    if found.__class__ is size.__class__ is int and found != size:
        _refuse(call, "gives an axis that does not count the samples", size, found)


def _looped(
    size: Any, call: Call, row: Sequence[Any], dims: Sequence[Any], single: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Run the operator for each sample, and stack the results."""
    _refuse_unbatched_writes(call, dims)
    if size == 0:
        return _of_none(call, row, dims)
    every = []
    for i in range(size):
        sample = [t if d is None else t.select(d, i) for t, d in zip(row, dims, strict=True)]
        every.append(call.in_a_row(single(*placed(call.values, sample))))
    if any(len(one) != len(every[0]) for one in every):
        _refuse(call, "gives lists of several lengths", len(every[0]), [len(one) for one in every])
    for column in zip(*every, strict=True):
        if any(t.shape != column[0].shape for t in column):
            seen = ", ".join(str(tuple(t.shape)) for t in column[:4])
            _refuse(call, "gives shapes that differ from sample to sample", "one shape", seen)
    columns = [torch.stack(list(column)) for column in zip(*every, strict=True)]
    return tuple(columns), (0,) * len(columns)


def _of_none(
    call: Call, row: Sequence[Any], dims: Sequence[Any]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Give the results of a batch of no samples, of which the fake rule says the shapes."""
    sample = [
        t if d is None else t.new_empty([n for i, n in enumerate(t.shape) if i != d % t.ndim])
        for t, d in zip(row, dims, strict=True)
    ]
    outs = call.in_a_row(Fake(call.op, call.plan)(*placed(call.values, sample)))
    return tuple([t.new_empty([0, *t.shape]) for t in outs]), (0,) * len(outs)


def _drawn(
    info: Any, call: Call, row: Sequence[Any], dims: Sequence[Any], single: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Run a random operator as a vmap says: one draw for all samples, or one for each."""
    if info.randomness == "error":
        refuse_random(call.op)
    if info.randomness == "different":
        return _looped(info.batch_size, call, row, dims, single)
    if all(d is None for d in dims):
        outs = call.in_a_row(single(*placed(call.values, row)))
        return outs, (None,) * len(outs)
    if not all(TORCH.is_concrete(debug_unwrap(t)) for t in row):
        raise VmapError(
            f'{call.op.name()} draws random numbers inside vmap(..., randomness="same"), where '
            "PyTorch only traces: a trace cannot draw the same for each sample",
            op=call.op._schema,
            source=call.op.source,
            fix="draw once outside of vmap, and give the numbers to it",
        )
    return _looped(info.batch_size, call, row, dims, again(single))


def refuse_random(op: OpOverload) -> NoReturn:
    """Refuse random numbers where a vmap does not say how they are drawn.

    Raises:
        VmapError: always.
    """
    raise VmapError(
        f"{op.name()} draws random numbers inside vmap, which does not say how",
        op=op._schema,
        source=op.source,
        fix='pass randomness="different" (each sample its own) or "same" (one for all) to vmap',
    )


def _refuse_unbatched_writes(call: Call, dims: Sequence[Any]) -> None:
    """Refuse to write each sample's values into an argument that all share."""
    # What is absent is not shared: an axis of zero stands there.
    for place, axes in zip(call.plan.places, call.mirrored(dims, absent=0), strict=True):
        if place.written and None in (axes if isinstance(axes, list) else [axes]):
            _refuse(call, f"would write {place.name!r}, which all samples share", "an axis", "none")


def _refuse(call: Call, what: str, declared: object, seen: object) -> NoReturn:
    raise VmapError(
        f"the vmap rule of {call.op.name()} {what}",
        op=call.op._schema,
        declared=declared,
        seen=f"{seen!r:.120}",
        source=call.op.rule_source("vmap"),
        fix="return (output, out_dims), with the axis of each result that counts the samples",
    )
