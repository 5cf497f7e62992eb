"""One draw for all samples: each sample starts from the same state of its generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.dispatch.bind import dispatch
from polyop.dispatch.operator import OpOverload
from polyop.ops.generator import Generator, default_generator, stand, state_of


def same_draws(
    values: Sequence[Any], call: Callable[[OpOverload, Sequence[Any]], Any] = dispatch
) -> Callable[[OpOverload, Sequence[Any]], Any]:
    """Give a call that puts the generator back to where the first sample found it."""
    generator = _generator(values)
    start = state_of(generator)

    def again(op: OpOverload, sample: Sequence[Any]) -> Any:
        stand(generator, start)
        return call(op, sample)

    return again


def _generator(values: Sequence[Any]) -> Generator | np.random.Generator:
    given = [v for v in values if isinstance(v, (Generator, np.random.Generator))]
    return given[0] if given else default_generator()


class Chunk:
    """A chunk of samples, which draws what the chunks before it drew.

    Attributes:
        starts: where the generators stood when the first chunk met them; all chunks have one.
        met: the generators that this chunk has met.
    """

    def __init__(self, starts: dict[Any, Any]) -> None:
        self.starts = starts
        self.met: set[Any] = set()


#: By the number of a running level.
CHUNKS: dict[int, Chunk] = {}


def draw_again(level: Any, values: Sequence[Any]) -> None:
    """Put a generator that a chunk meets first to where the first chunk met it."""
    chunk = CHUNKS.get(id(level))
    generator = _generator(values)
    if chunk is None or generator in chunk.met:
        return
    chunk.met.add(generator)
    if generator in chunk.starts:
        stand(generator, chunk.starts[generator])
    else:
        chunk.starts[generator] = state_of(generator)
