"""Axes that an author lets be cut: a call on parts gives the parts of the call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from polyop.checking.compare import compare_leaves
from polyop.checking.derived import attempt, tensors_of
from polyop.checking.law import Case
from polyop.checking.sample import Sample, array_of, leaves_named
from polyop.dispatch.chunk_rule import cuttable
from polyop.dispatch.index_signature import IndexSignature
from polyop.dispatch.index_text import Group
from polyop.errors import OpCheckError
from polyop.tensor.tensor import of_array


def check_cuts(case: Case, index: IndexSignature, sample: Sample) -> None:
    """Cut one axis after the other in two, and compare both calls with the parts of the whole one.

    Raises:
        OpCheckError: the kernel refuses a part, or gives other values for it.
    """
    names = sorted(cuttable(case.op))
    whole = attempt(case.op, sample) if names else None
    if whole is None:
        return
    leaves = leaves_named(whole[1], len(index.outputs))
    for name in names:
        for part in _halves(index, sample, name):
            _compare(case, index, sample, leaves, name, part)


def _halves(index: IndexSignature, sample: Sample, name: str) -> Iterator[slice]:
    sizes = [_size(x, group, name) for _, x, group in tensors_of(index, sample) if name in group]
    middle = sizes[0] // 2
    if middle:
        yield from (slice(0, middle), slice(middle, sizes[0]))


def _size(x: Any, group: Group, name: str) -> int:
    return int(x.shape[_axis(group, name)])


def _axis(group: Group, name: str) -> int:
    return group.index(name) - len(group)


def _part(array: Any, group: Group, name: str, part: slice) -> Any:
    """Give a part of an array along an axis, which it may not have."""
    if name not in group:
        return np.array(array)
    key = [slice(None)] * array.ndim
    key[_axis(group, name)] = part
    return array[tuple(key)].copy()


def _compare(  # noqa: PLR0917 - one part of one call
    case: Case,
    index: IndexSignature,
    sample: Sample,
    whole: list[tuple[str, Any]],
    name: str,
    part: slice,
) -> None:
    groups = [group for _, _, group in tensors_of(index, sample)]
    pairs = zip(sample.tensors(), groups, strict=True)
    given = [of_array(_part(array_of(t), group, name, part)) for t, group in pairs]
    found = attempt(case.op, sample.rebuilt(given))
    at = f"for {part.start}:{part.stop} of axis {name}, which register_chunks lets be cut"
    fix = f"take {name!r} out of register_chunks, or compute each part from itself alone"
    if found is None:
        raise OpCheckError(
            f"{case.name} refuses arguments {at}",
            op=case.op._schema,
            source=case.op.rule_source("chunks"),
            fix=fix,
        )
    triples = zip(whole, index.outputs, strict=True)
    expected = [(n, of_array(_part(array_of(t), group, name, part))) for (n, t), group in triples]
    compare_leaves(
        leaves_named(found[1], len(index.outputs)),
        expected,
        case.tolerance,
        f"{{}} of {case.name} is another one {at}",
        declared="the part of the call on whole arrays",
        op=case.op._schema,
        source=case.op.rule_source("chunks"),
        fix=fix,
    )
