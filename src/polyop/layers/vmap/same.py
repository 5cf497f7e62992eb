"""One draw for all samples: each sample starts from the same state of its generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.dispatch.bind import dispatch
from polyop.dispatch.operator import OpOverload
from polyop.ops.random import Generator, default_generator


def same_draws(
    values: Sequence[Any], call: Callable[[OpOverload, Sequence[Any]], Any] = dispatch
) -> Callable[[OpOverload, Sequence[Any]], Any]:
    """Give a call that puts the generator back to where the first sample found it."""
    given = [v for v in values if isinstance(v, (Generator, np.random.Generator))]
    generator = given[0] if given else default_generator()
    start = _state(generator)

    def again(op: OpOverload, sample: Sequence[Any]) -> Any:
        _set_state(generator, start)
        return call(op, sample)

    return again


def _state(generator: Generator | np.random.Generator) -> Any:
    if isinstance(generator, Generator):
        return generator.get_state()
    return dict(generator.bit_generator.state)


def _set_state(generator: Generator | np.random.Generator, state: Any) -> None:
    if isinstance(generator, Generator):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state
