"""Every operator that PyTorch has too, over the samples that PyTorch publishes for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tests.opinfo.needed  # noqa: F401 - first: without it there is nothing to import
from tests.opinfo.all_pairs import PAIRS
from tests.opinfo.pair import CHECKS, Pair
from tests.opinfo.reasons import Reason
from tests.opinfo.report import PROPERTY
from tests.opinfo.run import run

import polyop as P


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_an_operator_agrees_with_pytorch(name: str, record_property: Any) -> None:
    """S134, S147, S206: values, derivatives of both modes and orders, batches and fakes agree."""
    outcome = run(PAIRS[name])
    counts = {check: dict(outcome.counts[check]) for check in CHECKS if outcome.counts[check]}
    record_property(PROPERTY, json.dumps([name, counts]))
    assert not outcome.differences, "\n".join(outcome.differences[:8])
    assert outcome.counts["values"]["pass"], "no sample was compared"
    assert {r for c in counts.values() for r in c} <= {"pass", *Reason.__members__}


def test_a_wrong_operator_is_found() -> None:
    """S206: the comparison finds a wrong value, a wrong gradient, and a wrong order in memory."""
    wrong = run(Pair("sin", P.cos, ("sin",)))
    assert wrong.counts["values"]["FAIL"]
    flat = run(Pair("exp", lambda x: P.exp(x.detach()), ("exp",)))
    assert flat.counts["gradient"]["FAIL"]
    assert flat.counts["forward"]["FAIL"]
    assert not flat.counts["values"]["FAIL"]
    turned = run(Pair("exp", lambda x: P.exp(x).t().contiguous().t(), ("exp",)))
    assert turned.counts["strides"]["FAIL"]
