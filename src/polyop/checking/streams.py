"""What random operators draw from: fixed before each call, and put back when a law was tried.

Where the numbers that a kernel draws are the same in each call, a random operator is a function of
its arguments, and finite differences see its slope.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from polyop import tree
from polyop.checking.sample import BEFORE, Sample
from polyop.ops.generator import Generator, default_generator, stand, state_of

SEED = 5


@contextmanager
def kept_streams(sample: Sample) -> Iterator[None]:
    """Put all streams back to where they stood, and fix none any more."""
    states = [(g, state_of(g)) for g in _generators(sample)]
    legacy, python = np.random.get_state(), random.getstate()
    token = BEFORE.set(BEFORE.get())
    try:
        yield
    finally:
        BEFORE.reset(token)
        np.random.set_state(legacy)
        random.setstate(python)
        for generator, state in states:
            stand(generator, state)


def fix_streams() -> None:
    """From now on, let each call of a sample begin with the same streams."""
    BEFORE.set(_start)


def standing(sample: Sample) -> str:
    """Give where all streams stand."""
    found = [state_of(g) for g in _generators(sample)]
    legacy: Any = np.random.get_state(legacy=False)
    keys = legacy["state"]["key"].tobytes()
    return repr((found, keys, legacy["state"]["pos"], random.getstate()))


def _start(sample: Sample) -> None:
    np.random.seed(SEED)
    random.seed(SEED)
    for generator in _generators(sample):
        if isinstance(generator, Generator):
            generator.manual_seed(SEED)
        else:
            generator.bit_generator.state = type(generator.bit_generator)(SEED).state


def _generators(sample: Sample) -> list[Any]:
    """Give the default generator, and those among the arguments."""
    given = [leaf for value in sample.values for leaf in tree.leaves(value)]
    return [
        default_generator(),
        *(v for v in given if isinstance(v, (Generator, np.random.Generator))),
    ]
