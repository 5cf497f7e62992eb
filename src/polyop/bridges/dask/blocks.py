"""A call in blocks: cut along loops, and along the named axes that the author says may be cut.

Each axis of each array gets a label. Axes of one label meet: they are cut alike, or repeated. A
named axis that stays whole meets nothing: it has a label of its own, and one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn

import numpy as np
from dask.tokenize import tokenize

from polyop.bridges.dask.arrays import da
from polyop.bridges.dask.outlines import Fact
from polyop.bridges.dask.tasks import Call, fits
from polyop.bridges.dask.whole import warn_merged
from polyop.dispatch.chunk_rule import cuttable
from polyop.dispatch.index_signature import index_of
from polyop.dispatch.index_text import Group
from polyop.dispatch.operator import OpOverload
from polyop.errors import MetadataMismatchError
from polyop.schema.tags import Tag

Labels = tuple[str, ...]


class Axes(NamedTuple):
    """Which axes of a call's arrays meet.

    Attributes:
        inputs: the named axes of each array, in front of which are loops.
        outputs: the same for each result.
        cut: the named axes that may be cut.
    """

    inputs: tuple[Group, ...]
    outputs: tuple[Group, ...]
    cut: frozenset[str]

    def labels(self, ndim: int, group: Group, whole: str) -> Labels:
        """Label the axes of an array; those that stay whole have labels that begin with `whole`."""
        loops = ndim - len(group)
        named = [
            f"axis {name}" if name in self.cut else f"{whole} {i}" for i, name in enumerate(group)
        ]
        return (*[f"loop {loops - i}" for i in range(loops)], *named)


def axes_of(op: OpOverload, operands: int, results: int) -> Axes | None:
    """Give which axes of a call's arrays meet; None where nothing says it."""
    index = index_of(op)
    if index is not None and len(index.inputs) == operands:
        return Axes(index.inputs, index.outputs, cuttable(op))
    if Tag.pointwise in op.tags and index is None:
        return Axes(((),) * operands, ((),) * results, frozenset())
    return None


def blocked(
    call: Call, axes: Axes, arrays: Sequence[Any], facts: Sequence[Fact]
) -> list[Any] | None:
    """Give the results of a call in blocks; None if sizes that nobody knows stand in the way."""
    given = [
        axes.labels(x.ndim, group, f"whole {i}")
        for i, (x, group) in enumerate(zip(arrays, axes.inputs, strict=True))
    ]
    if not _can_cut(arrays, given):
        return None
    _check_loops(call.op, axes, given, facts)
    merged = _merged(call.op, axes, arrays, given)
    pairs = [one for pair in zip(merged, given, strict=True) for one in pair]
    name = f"{call.op._opname}-{tokenize(call, *merged)}"
    if not call.several:
        made = [_laid(call, axes, 0, facts, pairs, name)]
    else:
        rows = _rows(call, given, pairs, name)
        made = [
            _laid(itemgetter(i), axes, i, facts, rows, f"{name}-{i}") for i in range(len(facts))
        ]
    _check(call.op, made, facts)
    return made


def _can_cut(arrays: Sequence[Any], given: Sequence[Labels]) -> bool:
    """Tell whether chunks of sizes that nobody knows can stay as they are."""
    seen: dict[str, int] = {}
    for x, labels in zip(arrays, given, strict=True):
        for label, chunks in zip(labels, x.chunks, strict=True):
            unknown = any(map(math.isnan, chunks))
            if unknown and label.startswith("whole") and len(chunks) > 1:
                return False
            seen[label] = seen.get(label, 0) + (2 if unknown else chunks != (1,))
    return not any(n > 2 for label, n in seen.items() if not label.startswith("whole"))


def _merged(op: OpOverload, axes: Axes, arrays: Sequence[Any], given: Sequence[Labels]) -> Any:
    """Give arrays whose axes are in one chunk where they stay whole."""
    several = [
        [k for k, label in enumerate(labels) if label.startswith("whole") and x.numblocks[k] > 1]
        for x, labels in zip(arrays, given, strict=True)
    ]
    if not any(several):
        return arrays
    rows = zip(arrays, axes.inputs, several, strict=True)
    warn_merged(op, list(dict.fromkeys(group[k - x.ndim] for x, group, ks in rows for k in ks)))
    pairs = zip(arrays, several, strict=True)
    return [x.rechunk(dict.fromkeys(ks, -1)) if ks else x for x, ks in pairs]


def _rows(call: Call, given: Sequence[Labels], pairs: Sequence[Any], name: str) -> list[Any]:
    """Give an array of the tuples of all results, and its labels."""
    every = dict.fromkeys(label for labels in given for label in labels)
    labels = tuple([label for label in every if not label.startswith("whole")])
    meta = np.empty((0,) * len(labels), dtype=object)
    return [da.blockwise(call, labels, *pairs, name=name, meta=meta), labels]


def _laid(  # noqa: PLR0917 - one result
    fn: Callable[..., Any],
    axes: Axes,
    i: int,
    facts: Sequence[Fact],
    pairs: Sequence[Any],
    name: str,
) -> Any:
    """Lay out one result: what stays whole is a new axis of one chunk."""
    fact = facts[i]
    labels = axes.labels(len(fact.shape), axes.outputs[i], "new")
    new = {label: n for label, n in zip(labels, fact.shape, strict=True) if label.startswith("new")}
    meta = np.empty((0,) * len(labels), fact.dtype)
    return da.blockwise(fn, labels, *pairs, name=name, new_axes=new, meta=meta)


def _check_loops(
    op: OpOverload, axes: Axes, given: Sequence[Labels], facts: Sequence[Fact]
) -> None:
    """Refuse results that do not have each loop: a block of them would need several blocks."""
    loops = max((sum(x.startswith("loop") for x in labels) for labels in given), default=0)
    for i, (fact, group) in enumerate(zip(facts, axes.outputs, strict=True)):
        if len(fact.shape) != loops + len(group):
            _differs(op, i, fact, f"{loops} axes of the arguments' blocks, and {len(group)} more")


def _check(op: OpOverload, made: Sequence[Any], facts: Sequence[Fact]) -> None:
    for i, (array, fact) in enumerate(zip(made, facts, strict=True)):
        if not fits(array.shape, fact.shape):
            _differs(op, i, fact, f"shape {array.shape}")


def _differs(op: OpOverload, i: int, fact: Fact, seen: str) -> NoReturn:
    raise MetadataMismatchError(
        f"result {i} of {op.name()} has another shape in blocks than as a whole",
        op=op._schema,
        declared=f"shape {fact.shape}, by the fake rule",
        seen=seen,
        source=op.rule_source("fake"),
        fix="correct the fake rule, or take the tag pointwise away",
    )
