"""What stands beside an operator of PyTorch here, and how the two are called alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.opinfo.reasons import Reason

Fn = Callable[..., Any]
CHECKS = (
    "values", "in place", "gradient", "forward", "second", "mixed", "vmap", "batched", "fake",
    "strides",
)  # fmt: skip

#: The checks that differentiate.
SMOOTH = ("gradient", "forward", "second", "mixed", "batched")


def same(out: Any) -> Any:
    """Give a result as it is."""
    return out


@dataclass(frozen=True)
class Pair:
    """An operator of ours that takes the arguments of PyTorch's.

    Attributes:
        name: that of the published operator, with its variant behind a slash.
        ours: a function of PyTorch's arguments, on tensors of ours.
        covers: the public names of ours that it stands for.
        theirs: PyTorch's side, where the published operator is not it.
        after: for both sides, what is compared of a result (ours, theirs).
        skips: the checks that are left out, each with its reason.
        alike: whether a batch repeats one sample, for arguments that must not be shuffled.
        writes: the method that writes its first argument, if there is one.
        dtypes: names of dtypes beside those that every operator is run with.
    """

    name: str
    ours: Fn
    covers: tuple[str, ...]
    theirs: Fn | None = None
    after: tuple[Fn, Fn] = (same, same)
    skips: dict[str, Reason] = field(default_factory=dict)
    alike: bool = False
    writes: str | None = None
    dtypes: tuple[str, ...] = ()


PAIRS: dict[str, Pair] = {}


def pair(name: str, ours: Fn, *covers: str, **options: Any) -> None:
    """Put an operator beside one of PyTorch's."""
    assert name not in PAIRS
    PAIRS[name] = Pair(name, ours, covers or (name,), **options)
