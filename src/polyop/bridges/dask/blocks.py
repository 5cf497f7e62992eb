"""A call in blocks: cut along loops, and along the named axes that the author says may be cut.

Each axis of each array gets a label. Axes of one label meet: they are cut alike, or repeated. A
named axis that stays whole meets nothing: it has a label of its own, and one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, product
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn

import numpy as np
from dask.tokenize import tokenize

from polyop.bridges.dask.arrays import da
from polyop.bridges.dask.declared import declared_cut, fits
from polyop.bridges.dask.outlines import Fact, fact_of
from polyop.bridges.dask.tasks import Call, refuse_chunk
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
    """Give the results of a call in blocks; None if sizes that nobody knows stand in the way.

    Raises:
        MetadataMismatchError: what the fake rule says of blocks is not what it says of the whole.
    """
    given = [
        axes.labels(x.ndim, group, f"whole {i}")
        for i, (x, group) in enumerate(zip(arrays, axes.inputs, strict=True))
    ]
    if not _can_cut(arrays, given):
        return None
    _check_loops(call.op, axes, given, facts)
    merged = _merged(call.op, axes, arrays, given)
    pairs = [one for pair in zip(merged, given, strict=True) for one in pair]
    labels = [
        axes.labels(len(fact.shape), group, "new")
        for fact, group in zip(facts, axes.outputs, strict=True)
    ]
    call = call.declaring(declared_cut(facts, labels, given))
    name = f"{call.op._opname}-{tokenize(call, *merged)}"
    if not call.several:
        made = [_laid(call, labels[0], facts[0], pairs, name)]
    else:
        rows = _rows(call, given, pairs, name)
        made = [
            _laid(itemgetter(i), one, facts[i], rows, f"{name}-{i}") for i, one in enumerate(labels)
        ]
    _check(call.op, made, facts)
    _check_blocks(call, [fact_of(x) for x in merged], given, made, labels)
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


def _laid(
    fn: Callable[..., Any], labels: Labels, fact: Fact, pairs: Sequence[Any], name: str
) -> Any:
    """Lay out one result: what stays whole is a new axis of one chunk."""
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
        # A size that depends on data is none that follows from those of the arguments.
        if not all(math.isnan(n) or n == m for n, m in zip(array.shape, fact.shape, strict=True)):
            _differs(op, i, fact, f"shape {array.shape}")


#: Blocks of so many sizes are looked at when a recipe is written; all of them when they run.
MOST = 16


def _check_blocks(
    call: Call,
    whole: Sequence[Fact],
    given: Sequence[Labels],
    made: Sequence[Any],
    labels: Sequence[Labels],
) -> None:
    """Ask the fake rule of blocks, of each size once, for the parts of what it said of the whole.

    Raises:
        MetadataMismatchError: it says something else.
    """
    if all(x.npartitions == 1 for x in made):
        return
    sizes = {
        label: dict.fromkeys(n for n in chunks if not math.isnan(n))
        for x, names in zip(made, labels, strict=True)
        for label, chunks in zip(names, x.chunks, strict=True)
        if not label.startswith("new")
    }
    for blocks in islice(_blocks(whole, given, sizes), MOST):
        said = _said(call, blocks)
        shapes = [fact.shape for fact in blocks]
        for i, (fact, wanted) in enumerate(zip(said, call.wanted, strict=False)):
            declared = wanted.of_chunk(shapes)
            if not fits(fact.shape, declared.shape) or fact.dtype != declared.dtype:
                refuse_chunk(call.op, i, declared, fact, blocks)


def _blocks(
    whole: Sequence[Fact], given: Sequence[Labels], sizes: dict[str, Any]
) -> Iterator[tuple[Fact, ...]]:
    """Give the blocks of the arguments that meet in a task, those of the same sizes once."""
    for chosen in product(*sizes.values()):
        size = dict(zip(sizes, chosen, strict=True))
        yield tuple([
            Fact(tuple(map(partial(_cut, size), names, fact.shape)), fact.dtype)
            for fact, names in zip(whole, given, strict=True)
        ])  # fmt: skip


def _cut(size: dict[str, float], label: str, n: float) -> float:
    return n if n == 1 else size.get(label, n)


def _said(call: Call, blocks: tuple[Fact, ...]) -> Sequence[Fact]:
    """Ask the fake rule; what it raises is raised where such a block is computed, if one is."""
    try:
        return call.outlines.of(blocks).facts
    except Exception:
        return ()


def _differs(op: OpOverload, i: int, fact: Fact, seen: str) -> NoReturn:
    raise MetadataMismatchError(
        f"result {i} of {op.name()} has another shape in blocks than as a whole",
        op=op._schema,
        declared=f"shape {fact.shape}, by the fake rule",
        seen=seen,
        source=op.rule_source("fake"),
        fix="correct the fake rule, or take the tag pointwise away",
    )
