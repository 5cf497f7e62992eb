"""Widening what is no tensor: other numbers, flags and constants, and lists of other lengths."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from polyop import tree
from polyop.checking.sample import Sample, array_of
from polyop.schema.model import Argument
from polyop.schema.types import LiteralType, OptionalType
from polyop.tensor.tensor import Tensor, of_array

#: How a number changes: an exponent or a tolerance stays near to what it was.
FACTOR, FROM_ZERO = 1.25, 0.5


def choices(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with one flag, number or constant replaced, each in turn."""
    pairs = zip(sample.schema.arguments, sample.values, strict=True)
    for i, (argument, value) in enumerate(pairs):
        for name, other in others_of(argument, value):
            yield name, sample.replaced(i, other)


def others_of(argument: Argument, value: Any) -> Iterator[tuple[str, Any]]:
    """Give other values of an argument, each with one leaf changed."""
    kind = argument.type.elem if isinstance(argument.type, OptionalType) else argument.type
    if isinstance(kind, LiteralType):
        rest = [c for c in kind.values if (c.__class__, c) != (value.__class__, value)]
        yield from ((f"{argument.name}={c!r}", c) for c in rest if value is not None)
        return
    leaves, spec = tree.flatten(value)
    for k, leaf in enumerate(leaves):
        other = _other(leaf)
        if other is not None:
            changed = [*leaves[:k], other, *leaves[k + 1 :]]
            yield f"{argument.name}{tree.paths(value)[k]}={other}", tree.unflatten(spec, changed)


def _other(leaf: Any) -> Any:
    """Give another number or flag; None for anything else."""
    if leaf.__class__ is bool:
        return not leaf
    if leaf.__class__ is int:
        return leaf + 1
    if leaf.__class__ is float and math.isfinite(leaf):
        return leaf * FACTOR or FROM_ZERO
    return None


def relisted(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with other lengths of its lists; those of one length keep one."""
    lists = {i: v for i, v in enumerate(sample.values) if _is_list_of_tensors(v)}
    for n in sorted({len(v) for v in lists.values()}):
        ours = [i for i, v in lists.items() if len(v) == n]
        names = ", ".join(sample.schema.arguments[i].name for i in ours)
        for m in sorted({0, 1, n + 1} - {n}):
            made = sample
            for i in ours:
                made = made.replaced(i, _of_length(lists[i], m))
            yield f"{names} of length {m}", made


def _is_list_of_tensors(value: Any) -> bool:
    return value.__class__ is list and any(isinstance(item, Tensor) for item in value)


def _of_length(items: list[Any], length: int) -> list[Any]:
    """Cut a list, or let it go on with a tensor whose elements lie otherwise."""
    last = next(t for t in reversed(items) if isinstance(t, Tensor))
    more = [of_array(np.roll(array_of(last), k + 1)) for k in range(length - len(items))]
    return [*items[:length], *more]
