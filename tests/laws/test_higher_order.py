"""Operators that take functions equal Python's `if` and loops under all transforms (S179)."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence
from typing import Any

import pytest
from tests.laws.higher_order import PROGRAMS, Judgement, Ours, Plain, Transforms
from tests.laws.payloads import MAKERS
from tests.laws.programs import as_theirs, data, values_of
from tests.laws.transforms import DERIVATIVES, ORDER, close, composed

#: PyTorch's, at the first `torch.func.jvp` of a process.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
#: How many times as many chains as a plain run has: `make laws`.
HEAVY = int(os.environ.get("POLYOP_LAWS", "1"))
NAMES = [
    "grad", "jvp", "vmap", "functionalize", "real", "faked", "symbolic", "before", "here", "fake",
    "compiled",
]  # fmt: skip
each = pytest.mark.parametrize("name", PROGRAMS)


def check(name: str, chain: Sequence[str], where: int) -> None:
    """Compare a chain of transforms of a program with PyTorch's plain computation."""
    program, make = PROGRAMS[name], MAKERS["numpy"]
    x, y = data(where), data(where + 1)
    found: Any = composed(Transforms(make), chain, lambda a, b: program(Ours, a, b))
    plain: Any = composed(Judgement(), chain, lambda a, b: program(Plain, a, b))
    try:
        close(values_of(found(make(x), make(y))), values_of(plain(as_theirs(x), as_theirs(y))))
    except Exception as error:
        error.add_note(f"{'-'.join(chain)} of {name}, data {where}")
        raise


def drawn(name: str, length: int, count: int) -> list[tuple[str, ...]]:
    """Draw chains for a program, the same in each run."""
    rng = random.Random(f"{name} {length}")
    chains = [c for c in itertools.product(NAMES, repeat=length) if differentiated(c) <= ORDER]
    return rng.sample(chains, min(count * HEAVY, len(chains)))


def differentiated(chain: Sequence[str]) -> int:
    """Count the derivatives of a chain."""
    return sum(name in DERIVATIVES for name in chain)


@each
def test_single_transforms(name: str) -> None:
    """S179, S180, S182: each transform of a call equals that of Python."""
    for transform, where in itertools.product(NAMES, range(4)):
        check(name, [transform], where)


@each
def test_pairs(name: str) -> None:
    """S179, S134, S157, S168, S209: so does each pair of transforms."""
    for i, chain in enumerate(itertools.product(NAMES, repeat=2)):
        check(name, chain, i % 7)


@each
def test_triples(name: str) -> None:
    """S179, S205: so do triples, of which a few are drawn for each program."""
    for i, chain in enumerate(drawn(name, 3, 20)):
        check(name, chain, i % 7)


@each
def test_long_chains(name: str) -> None:
    """S179, S205: so do longer chains."""
    for i, chain in enumerate(drawn(name, 4, 5)):
        check(name, chain, i % 7)


def test_predicates_differ() -> None:
    """S180: the data take both ways through each choice, so that the laws above say something."""
    taken: set[bool] = set()

    class Watched(Plain):
        @staticmethod
        def cond(pred: Any, yes: Any, no: Any, operands: Any) -> Any:
            taken.add(bool(pred))
            return Plain.cond(pred, yes, no, operands)

    for name in [name for name in PROGRAMS if "cond" in name]:
        taken.clear()
        for where in range(7):
            PROGRAMS[name](Watched, as_theirs(data(where)), as_theirs(data(where + 1)))
        assert taken == {True, False}, name
