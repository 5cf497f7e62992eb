"""Widening to rarer inputs: what is expanded, has more axes, holds zeros, or has another width."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from polyop.checking.inputs import cast
from polyop.checking.sample import Sample, array_of
from polyop.devices import DTYPES
from polyop.tensor.tensor import Tensor, of_array

#: How many axes a tensor may have to get one more.
MOST_AXES = 16


def expanded(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with one element, row or column in place of all, which lies there once."""
    written = sample.written()

    def spread(t: Tensor, axis: int) -> Tensor:
        array = array_of(t)
        if not array.size or not array.ndim or id(t) in written:
            return t
        return of_array(np.broadcast_to(array.take([0], axis), array.shape))

    for axis in (0, -1) if any(t.ndim > 1 for t in sample.tensors()) else (0,):
        yield "expanded", sample.map(partial(spread, axis=axis))


def reranked(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with one more axis in front of each tensor's."""
    if all(t.ndim < MOST_AXES for t in sample.tensors()):
        yield "one more axis", sample.map(lambda t: of_array(np.stack([array_of(t)] * 2)))


def with_zeros(sample: Sample) -> Sample:
    """Give the sample with each second element zero; not in integers beside others, as indices."""
    whole = all(t.dtype.kind in "iub" for t in sample.tensors())

    def cleared(t: Tensor) -> Tensor:
        array = array_of(t).copy()
        if array.dtype.kind in "iu" and not whole:
            return t
        array[np.arange(array.size).reshape(array.shape) % 2 == 0] = 0
        return of_array(array)

    return sample.map(cleared)


def in_bfloat16(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with its floating tensors in a dtype that NumPy itself has not."""
    yield "dtype bfloat16", cast(sample, DTYPES["bfloat16"])


def other_widths(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give the sample with its integers in another width."""

    def widened(t: Tensor) -> Tensor:
        if t.dtype.kind not in "iu":
            return t
        return of_array(array_of(t).astype(f"{t.dtype.kind}{4 if t.dtype.itemsize == 8 else 8}"))

    yield "another width", sample.map(widened)


__all__ = ["expanded", "in_bfloat16", "other_widths", "reranked", "with_zeros"]
