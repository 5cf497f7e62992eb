"""One draw for all samples: each sample starts from the same state of its generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop.dispatch.bind import dispatch
from polyop.dispatch.operator import OpOverload


def same_draws(values: Sequence[Any]) -> Callable[[OpOverload, Sequence[Any]], Any]:
    """Give a call that puts the generator back before each sample but the first."""
    raise NotImplementedError
