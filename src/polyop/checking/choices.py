"""Widening what is no tensor: other numbers, flags and constants, and lists of other lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby
from typing import Any

import numpy as np

from polyop import tree
from polyop.checking.sample import Sample, array_of
from polyop.schema.model import Argument
from polyop.schema.types import LiteralType, OptionalType, Type
from polyop.tensor.tensor import Tensor, of_array

#: How a number changes: an exponent or a tolerance stays near to what it was.
FACTOR, FROM_ZERO = 1.25, 0.5

#: What may stand in the place of a leaf.
Others = Callable[[Any], Sequence[Any]]
Made = Iterator[tuple[str, Sample]]


def choices(sample: Sample) -> Made:
    """Give the sample with one flag, number or constant replaced, each in turn."""
    places = range(len(sample.values))
    return chain(
        chain.from_iterable(others_of(sample, i) for i in places),
        turned_axes(sample),
        chain.from_iterable(_with_others(sample, i, _smaller) for i in places),
    )


def others_of(sample: Sample, i: int) -> Made:
    """Give the sample with one constant in an argument replaced, or one integer one larger."""
    return chain(_constants_of(sample, i), _with_others(sample, i, _larger))


def constants(sample: Sample) -> Made:
    """Give the sample with one flag, fraction, dtype or literal replaced, but no integer."""
    return chain.from_iterable(_constants_of(sample, i) for i in range(len(sample.values)))


def around(sample: Sample) -> Iterator[list[tuple[str, Sample]]]:
    """Give, for each integer, the sample with others in its place: odd ones, and even ones."""
    for i in range(len(sample.values)):
        made = _with_others(sample, i, _near)
        for _, those in groupby(made, key=lambda pair: pair[0].rpartition("=")[0]):
            yield list(those)


def turned_axes(sample: Sample) -> Made:
    """Give the sample with each integer that may be an axis counted from the other end."""
    ranks = sorted({t.ndim for t in sample.tensors()})

    def turned(n: Any) -> Sequence[int]:
        fitting = [rank for rank in ranks if n.__class__ is int and -rank <= n < rank]
        same = [n - rank if n >= 0 else n + rank for rank in fitting]
        return [*same, -1] if same and n >= 0 else same

    for i in range(len(sample.values)):
        yield from _with_others(sample, i, turned)


def _constants_of(sample: Sample, i: int) -> Made:
    argument, value = sample.schema.arguments[i], sample.values[i]
    kind = _kind(argument)
    if value is not None and isinstance(kind, LiteralType):
        rest = [c for c in kind.values if (c.__class__, c) != (value.__class__, value)]
        return ((f"{argument.name}={c!r}", sample.replaced(i, c)) for c in rest)
    return _with_others(sample, i, _constants)


def _with_others(sample: Sample, i: int, others: Others) -> Made:
    """Give the sample with one leaf of one argument replaced, each in turn."""
    argument, value = sample.schema.arguments[i], sample.values[i]
    if isinstance(value, Tensor) or isinstance(_kind(argument), LiteralType):
        return
    leaves, spec = tree.flatten(value)
    for k, leaf in enumerate(leaves):
        for other in dict.fromkeys(others(leaf)):
            if other != leaf:
                changed = [*leaves[:k], other, *leaves[k + 1 :]]
                name = f"{argument.name}{tree.paths(value)[k]}={other}"
                yield name, sample.replaced(i, tree.unflatten(spec, changed))


def _kind(argument: Argument) -> Type:
    return argument.type.elem if isinstance(argument.type, OptionalType) else argument.type


def _constants(leaf: Any) -> Sequence[Any]:
    if leaf.__class__ is bool:
        return [not leaf]
    if leaf.__class__ is float and math.isfinite(leaf):
        return [leaf * FACTOR or FROM_ZERO]
    if isinstance(leaf, np.dtype):
        return [np.dtype("float32" if leaf == np.float64 else "float64")]
    return []


def _larger(leaf: Any) -> Sequence[int]:
    return [leaf + 1] if leaf.__class__ is int else []


def _smaller(leaf: Any) -> Sequence[int]:
    # Zero, as a step, may be one that ends nowhere.
    return [leaf - 1, 1] if leaf.__class__ is int and leaf > 1 else []


def _near(leaf: Any) -> Sequence[int]:
    return [leaf + 1, leaf + 2, *_smaller(leaf)] if leaf.__class__ is int else []


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
