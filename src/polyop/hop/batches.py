"""Functions of one sample as functions of whole batches, below a vmap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from polyop.hop.forms import Flat, Group, closed
from polyop.layers.levels import enter_level
from polyop.layers.vmap.batch import VmapLevel, batched, peel
from polyop.layers.vmap.same import CHUNKS, Chunk
from polyop.ops.broadcasting import expand_to
from polyop.ops.views import expand_dims, moveaxis
from polyop.tensor.tensor import Tensor


def at_axis(value: Tensor, axis: int | None, to: int, size: Any) -> Tensor:
    """Give a value with its batch axis at a place; a value without one is repeated."""
    if axis is None:
        shape = list(value.shape)
        shape.insert(to, size)
        made: Tensor = expand_to(expand_dims(value, to), shape)
        return made
    return value if axis == to else moveaxis(value, axis, to)


@contextmanager
def in_chunk(level: VmapLevel, chunk: Chunk | None) -> Iterator[None]:
    """Let a level draw what the chunk of samples draws that it stands for, if it is one."""
    if chunk is None:
        yield
        return
    CHUNKS[id(level)] = chunk
    try:
        yield
    finally:
        del CHUNKS[id(level)]


def on_batch(fn: Flat, axes: Sequence[int | None], level: VmapLevel) -> Flat:
    """Give the function of whole batches, which gives batches along axis 0."""
    chunk = CHUNKS.get(id(level))

    def of_batch(*given: Any) -> Group:
        # A level of its own: gradients call this again when the vmap has ended.
        inner = VmapLevel(level.batch_size, level.randomness)
        pairs = zip(given, axes, strict=True)
        inputs = [x if axis is None else batched(x, axis, inner) for x, axis in pairs]
        with in_chunk(inner, chunk), enter_level(inner):
            out = fn(*inputs)
        return tuple(whole_of(x, inner) for x in out)

    of_batch.__wrapped__ = fn  # type: ignore[attr-defined]
    return closed(Flat(of_batch, None, fn.name))


def whole_of(leaf: Any, level: VmapLevel) -> Any:
    """Give the batch of a result, along axis 0."""
    if not isinstance(leaf, Tensor):
        return leaf
    value, axis = peel(leaf, level)
    return at_axis(value, axis, 0, level.batch_size)


def in_batch(leaf: Any, axis: int, level: VmapLevel) -> Any:
    """Give the tensor whose samples lie along an axis."""
    return batched(leaf, axis, level) if isinstance(leaf, Tensor) else leaf
