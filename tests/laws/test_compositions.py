"""Every pair and triple of transforms equals the plain computation (S134, S157, S168, S205)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st
from tests.conftest import FIRST_SEED
from tests.laws import transforms
from tests.laws.payloads import MAKERS, available
from tests.laws.programs import Call, as_theirs, data, ours, programs, theirs, values_of
from tests.laws.transforms import DERIVATIVES, NAMES, ORDER, OTHERS, Chain, close, composed

#: PyTorch's, at the first `torch.func.jvp` of a process.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
#: How many times as many programs as a plain run has: `make laws`.
HEAVY = int(os.environ.get("POLYOP_LAWS", "1"))


def few(n: int) -> Any:
    """Give the settings of a law that takes some programs."""
    return settings(
        max_examples=n * HEAVY, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )  # fmt: skip


def check(calls: Sequence[Call], chain: Chain, payload: str = "numpy", where: int = 1) -> None:
    """Compare a chain of transforms of a program with PyTorch's plain computation."""
    x, y = data(where), data(where + 1)
    make = MAKERS[payload]
    found = composed(transforms.Ours(make), chain, ours(calls))(make(x), make(y))
    expected = composed(transforms.Theirs(), chain, theirs(calls))(as_theirs(x), as_theirs(y))
    close(values_of(found), values_of(expected))


@pytest.mark.parametrize("name", NAMES)
@seed(FIRST_SEED)
@few(6)
@given(calls=programs(), where=st.integers(0, 1000))
def test_single_transforms(name: str, calls: Any, where: int) -> None:
    """S134, S157, S168, S209: each transform of a program equals the plain computation."""
    check(calls, [name], "numpy", where)


@pytest.mark.parametrize("chain", list(itertools.product(NAMES, repeat=2)), ids="-".join)
@seed(FIRST_SEED)
@few(2)
@given(calls=programs(most=30), where=st.integers(0, 1000))
def test_pairs(chain: Chain, calls: Any, where: int) -> None:
    """S134, S157, S205: any two transforms of a program compose."""
    check(calls, chain, "numpy", where)


@pytest.mark.parametrize("payload", [name for name in available() if name != "numpy"])
@pytest.mark.parametrize("chain", [c for n in (1, 2) for c in itertools.product(NAMES, repeat=n)],
                         ids="-".join)  # fmt: skip
@seed(FIRST_SEED)
@few(1)
@given(calls=programs(most=8), where=st.integers(0, 1000))
def test_payloads(chain: Chain, payload: str, calls: Any, where: int) -> None:
    """S134, S157, S205: transforms compose on arrays of other libraries, as they are."""
    check(calls, chain, payload, where)


@pytest.mark.parametrize("payload", [name for name in available() if name != "numpy"])
@pytest.mark.parametrize("chain", list(itertools.product(NAMES, repeat=3)), ids="-".join)
@seed(FIRST_SEED)
@few(1)
@given(calls=programs(least=5, most=6), where=st.integers(0, 1000))
def test_triples_on_payloads(chain: Chain, payload: str, calls: Any, where: int) -> None:
    """S134, S157, S205: three transforms compose on arrays of other libraries, as they are."""
    check(calls, chain, payload, where)


@pytest.mark.parametrize("chain", list(itertools.product(NAMES, repeat=3)), ids="-".join)
@seed(FIRST_SEED)
@few(1)
@given(calls=programs(least=8, most=14), where=st.integers(0, 1000))
def test_triples(chain: Chain, calls: Any, where: int) -> None:
    """S134, S157, S205: any three transforms of a program compose."""
    check(calls, chain, "numpy", where)


#: What else is composed with the six, in both orders.
MIXED = [(a, b) for pair in itertools.product(OTHERS, NAMES) for a, b in (pair, pair[::-1])]
#: The engine runs outside of other transforms, and in traces; `REFUSED` has the rest.
ENGINE = [("backward", b) for b in [*NAMES, *OTHERS]] + [
    (a, "backward") for a in ["trace", "fake", "compiled"]
]


@pytest.mark.parametrize("chain", MIXED + ENGINE, ids="-".join)
@seed(FIRST_SEED)
@few(1)
@given(calls=programs(least=4, most=10), where=st.integers(0, 1000))
def test_other_transforms(chain: Chain, calls: Any, where: int) -> None:
    """S133, S134, S209: so do the engine, other derivatives, other traces and compile."""
    if "backward" in chain:  # which refuses writes to what it needs
        calls = [c for c in calls if c.name != "poke"]
    if "backward" in chain and "compiled" in chain:  # which does not repeat writes
        calls = [c._replace(name="binary") if c.name == "written" else c for c in calls]
    check(calls, chain, "numpy", where)


@seed(FIRST_SEED)
@few(40)
@example(
    calls=[Call("unary", i, i, 0) for i in (1, 2, 3)],
    chain=["grad", "trace", "pre_dispatch", "fake"], where=0,
)  # fmt: skip
@given(
    calls=programs(least=3, most=8),
    chain=st.lists(st.sampled_from(NAMES + OTHERS), min_size=3, max_size=5),
    where=st.integers(0, 1000),
)
def test_long_chains(chain: Chain, calls: Any, where: int) -> None:
    """S134, S157, S205: chains of any transforms compose."""
    while sum(name in DERIVATIVES for name in chain) > ORDER:
        chain = chain[1:]
    check(calls, chain, "numpy", where)
