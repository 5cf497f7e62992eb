"""A call as one task, which gets whole arrays: right for every operator, and not in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dask.tokenize import tokenize

from polyop.bridges.dask.arrays import da, delayed
from polyop.bridges.dask.outlines import Fact
from polyop.bridges.dask.tasks import Call
from polyop.dispatch.chunk_rule import may_cut
from polyop.dispatch.index_text import example_of
from polyop.dispatch.operator import OpOverload
from polyop.errors import PerformanceWarning
from polyop.payloads.dask_arrays import in_one_task
from polyop.warn import warn_once


def whole(call: Call, operands: Sequence[Any], facts: Sequence[Fact]) -> list[Any]:
    """Give the results of a call on whole arrays, each a recipe of one chunk."""
    name, token = call.op._opname, tokenize(call, *operands)
    key = f"{name}-task-{token}"
    given = [in_one_task(x) for x in operands]
    task = delayed(call, pure=True, traverse=False)(*given, dask_key_name=key)
    parts = [task[i] for i in range(len(facts))] if call.several else [task]
    return [
        da.from_delayed(part, fact.shape, fact.dtype, name=f"{name}-{i}-{token}")
        for i, (part, fact) in enumerate(zip(parts, facts, strict=True))
    ]


def is_cut(operands: Sequence[Any]) -> bool:
    """Tell whether an array is in several chunks."""
    return any(isinstance(x, da.Array) and x.npartitions > 1 for x in operands)


def warn_whole(op: OpOverload, how: str = "one task on whole arrays") -> None:
    """Say once that a call is not cut, though its arrays are."""
    example = example_of(op._schema)
    index = f"an index signature, as op.register_index({example!r}), " if example else ""
    _warn(
        op,
        "whole",
        f"{op.name()} runs as {how}: nothing says how it may be cut; "
        f'say it with {index}the tag "pointwise", or op.register_chunks',
    )


def warn_merged(op: OpOverload, axes: Sequence[str]) -> None:
    """Say once that chunks are put together for a call."""
    free = [name for name in axes if may_cut(op, name)]
    fix = f"if its kernel works on parts, op.register_chunks({free[0]!r}); else " if free else ""
    _warn(
        op,
        "merged",
        f"{op.name()} puts chunks along {', '.join(axes)} together, which its index signature "
        f"wants whole; to keep tasks small: {fix}cut the axes before them finer",
    )


def _warn(op: OpOverload, cause: str, text: str) -> None:
    warn_once(PerformanceWarning, text, key=("dask", cause), of=op)
