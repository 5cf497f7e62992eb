"""Random programs of registrations run in polyop and in PyTorch, and must come to the same.

A failing program is printed with its seed; `registration_laws` says what is compared.
"""

from __future__ import annotations

import json
from typing import TypeAlias

import pytest
from tests.conftest import FIRST_SEED
from tests.forked import run_forked

PROGRAMS = 400
PART = 50
IMPORTED = "from tests.dispatch import registration_laws"
#: By law and seed: what is wrong, or "stale" where PyTorch's calls say nothing.
Report: TypeAlias = dict[str, dict[str, str]]


@pytest.fixture(scope="module", params=range(FIRST_SEED, FIRST_SEED + PROGRAMS, PART))
def report(request: pytest.FixtureRequest) -> Report:
    """What the laws say of some programs, run among no operators but their own."""
    first: int = request.param
    done = run_forked(
        f"{IMPORTED}; registration_laws.print_report({first}, {first + PART})", IMPORTED
    )
    assert done.returncode == 0, done.stderr
    said: Report = json.loads(done.stdout.splitlines()[-1])
    return said


def check(said: dict[str, str], stale: int = 0) -> None:
    """Let a law hold for every program, but for so many that cannot be compared."""
    assert len(said) == PART
    wrong = {seed: text for seed, text in said.items() if text not in {"", "stale"}}
    assert not wrong, "\n".join(f"seed {seed}\n{text}" for seed, text in wrong.items())
    assert list(said.values()).count("stale") <= stale


def test_tables(report: Report) -> None:
    """S85 to S88, S102, S105, S106: tables agree entry by entry, with reason and registration."""
    check(report["tables"])


def test_refusals(report: Report) -> None:
    """S31, S33, S35, S36, S38, S40, S41: the same steps are refused, with an error of that type."""
    check(report["refusals"])


def test_keys_resolved(report: Report) -> None:
    """S88: `resolve_key` gives the same key, or the same kind of error."""
    check(report["keys_resolved"])


def test_calls_under_guards(report: Report) -> None:
    """S92, S93, S96, S102, S103: under any key sets, the same kernels act in the same order."""
    check(report["calls_under_guards"], stale=PART // 4)


def test_calls_on_given_keys(report: Report) -> None:
    """S103: `redispatch` goes by the given keys alone, through the same kernels."""
    check(report["calls_on_given_keys"], stale=PART // 4)
