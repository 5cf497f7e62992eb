"""One operator, run through all checks over its samples."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tests.opinfo.checks import RUNS
from tests.opinfo.compare import Both
from tests.opinfo.convert import Sample, op_db, samples
from tests.opinfo.differences import known
from tests.opinfo.pair import CHECKS, SMOOTH, Pair
from tests.opinfo.reasons import Reason, SkipSample

#: How many samples a check takes of each dtype; without a number, all.
MOST = {
    "gradient": 16, "forward": 12, "second": 4, "mixed": 4, "vmap": 10, "batched": 4,
    "fake": 40, "strides": 40,
}  # fmt: skip
REAL = (torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)
WHOLE = (torch.int64, torch.bool)


@dataclass
class Outcome:
    """What the samples of one operator came to: counts by check and reason, and differences."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {c: Counter() for c in CHECKS})
    differences: list[str] = field(default_factory=list)


def dtypes_of(info: Any) -> list[torch.dtype]:
    """Give the dtypes that an operator is compared in: whole numbers where it takes no others."""
    found = [d for d in (*REAL, *COMPLEX) if d in info.dtypes]
    return found or [d for d in WHOLE if d in info.dtypes]


def variant(pair: Pair) -> Any:
    """Find the published operator of a pair."""
    name, _, which = pair.name.partition("/")
    return next(i for i in op_db()[name] if i.variant_test_name == which)


def run(pair: Pair) -> Outcome:
    """Run all checks of one operator."""
    info, outcome = variant(pair), Outcome()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors: more threads only wait for each other
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            for dtype in dtypes_of(info):
                _run_in(pair, info, dtype, outcome)
    finally:
        torch.set_num_threads(threads)
    return outcome


def _run_in(pair: Pair, info: Any, dtype: torch.dtype, outcome: Outcome) -> None:
    smooth = dtype in {torch.float64, torch.complex128} and info.supports_autograd
    plain = list(samples(info, dtype))
    differentiable = list(samples(info, dtype, requires_grad=True)) if smooth else []
    for check in CHECKS:
        for sample in _chosen(check, differentiable if check in SMOOTH else plain):
            _one(pair, info, sample, check, dtype, outcome)


def _chosen(check: str, found: list[Sample]) -> list[Sample]:
    """Give the samples of a check: spread evenly over all, small ones for second gradients."""
    most = MOST.get(check, len(found))
    if check in {"second", "mixed", "batched"}:
        found = sorted(found, key=_size)
        found = [s for s in found if 1 <= _size(s)] or found
    step = max(len(found) / most, 1.0) if found else 1.0
    return [found[int(i * step)] for i in range(min(most, len(found)))]


def _size(sample: Sample) -> int:
    return max([t.numel() for t in sample.tensors], default=0)


def _one(
    pair: Pair, info: Any, sample: Sample, check: str, dtype: torch.dtype, outcome: Outcome
) -> None:
    try:
        if check in pair.skips:
            raise SkipSample(pair.skips[check])
        reason = RUNS[check](Both(pair, info, sample))
    except LookupError as error:
        if type(error) is LookupError:
            return
        reason = _explained(pair, check, dtype, sample, error, outcome)
    except SkipSample as skipped:
        reason = skipped.reason
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        reason = _explained(pair, check, dtype, sample, error, outcome)
    if reason is None or isinstance(reason, Reason):
        outcome.counts[check]["pass" if reason is None else reason.name] += 1


def _explained(
    pair: Pair, check: str, dtype: torch.dtype, sample: Sample, error: Exception, outcome: Outcome
) -> Any:
    """Look a difference up; one that is not known is kept, and fails the test."""
    found = known(pair, check, dtype, sample, error)
    if found is not None:
        return found
    text = f"{type(error).__name__}: {error}"
    outcome.counts[check]["FAIL"] += 1
    name = str(dtype).removeprefix("torch.")
    outcome.differences.append(f"{pair.name} {check} {name} {sample}\n    {text[:600]}")
    return False
