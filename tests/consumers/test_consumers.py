"""SciPy and scikit-learn run on `polyop.Tensor` under their own array-API switches.

What is run stands in `calls_scipy.py` and `calls_sklearn.py`, one line for each call as a user
writes it: functions of `scipy.special`, `stats`, `integrate`, `optimize`, `differentiate`, `fft`,
`signal`, `ndimage`, `cluster` and `spatial`; estimators, transformers, searches and metrics of
scikit-learn. `run.py` makes the calls, in a process of its own, because the switch is read when
SciPy is first imported: `SCIPY_ARRAY_API=1 python -m tests.consumers.run scipy` prints a verdict
for each. Neither library is patched, and neither knows polyop by name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.consumers import calls_scipy, calls_sklearn

ROOT = Path(__file__).parents[2]
TABLES = {"scipy": calls_scipy.CALLS, "sklearn": calls_sklearn.CALLS}
BOTH = pytest.mark.parametrize("consumer", ["scipy", "sklearn"])


@cache
def verdicts(consumer: str) -> dict[str, Any]:
    """Run a consumer's calls under its switch."""
    if find_spec(consumer) is None:
        pytest.skip(f"{consumer} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.consumers.run", consumer],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def calls(consumer: str, *ways: str) -> list[str]:
    """The calls of a consumer whose gradients come in one of some ways."""
    return [text for text, way in TABLES[consumer].items() if way in ways]


@BOTH
def test_values_are_numpys(consumer: str) -> None:
    """Every call gives what it gives with NumPy; arrays are tensors, of the same kind."""
    wrong = {t: v["values"] for t, v in verdicts(consumer).items() if v["values"]}
    assert not wrong
    assert len(verdicts(consumer)) >= 60


@BOTH
@pytest.mark.parametrize("way", ["backward", "func"])
def test_gradients_are_finite_differences(consumer: str, way: str) -> None:
    """S134, S138: gradients through a consumer's own code are those of finite differences."""
    ways = ("both", "func") if way == "func" else ("both",)
    found = {t: verdicts(consumer)[t]["gradients"] for t in calls(consumer, *ways)}
    assert not {t: g for t, g in found.items() if isinstance(g, str) or g[way]}
    assert len(found) >= 20
    assert all(g["moves"] == "True" for g in found.values()), "a gradient of zeros proves little"


@BOTH
def test_no_gradient_is_wrong(consumer: str) -> None:
    """S135: where one way gives no gradient, it says so; it never gives a wrong one."""
    for text in calls(consumer, "both", "func"):
        found = verdicts(consumer)[text]["gradients"]
        assert not isinstance(found, str), (text, found)
        assert not found["func"], (text, found)
        assert not found["backward"] or found["backward"] == "refused: AutogradError", (text, found)


def test_compiled_code_gets_no_gradients() -> None:
    """S138: a function with compiled code alone refuses tensors that a gradient flows to."""
    for text in calls_scipy.COMPILED:
        found = verdicts("scipy")[text]["gradients"]
        assert found["backward"] == found["func"] == "refused: AutogradError", (text, found)
