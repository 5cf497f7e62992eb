"""The laws of repetition: the same call gives the same bits, alone and beside others."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np

from polyop.checking.compare import difference, same_bits
from polyop.checking.law import Case, law, outcome
from polyop.checking.sample import Sample
from polyop.errors import OpCheckError

REPEATS = 3
THREADS = 4

Leaves = list[tuple[str, Any]]


@law("test_determinism", "The same arguments give the same results, bit for bit.")
def determinism_law(case: Case) -> None:
    """Call several times, and compare bits."""
    case.needs_determinism()
    first = outcome(case, case.sample.copy())
    for _ in range(REPEATS - 1):
        again = outcome(case, case.sample.copy())
        compare_bits(
            case, again, first,
            problem=f"{case.name} gives another result for the same arguments",
            fix="draw random numbers from an argument (a seed, a generator), keep no state, or say "
            "so: tags=(Tag.nondeterministic_seeded,)",
        )  # fmt: skip


@law("test_threads", "Calls in several threads give what calls one after another give.")
def threads_law(case: Case) -> None:
    """Call in several threads at once, and compare bits."""
    case.needs_repeats()
    wanted = outcome(case, case.sample.copy())
    start = Barrier(THREADS)

    def together(sample: Sample) -> list[Leaves]:
        start.wait(timeout=60)
        with np.errstate(all="ignore"):  # a thread begins with the default
            return [outcome(case, sample.copy()) for _ in range(REPEATS)]

    samples = [case.sample.copy() for _ in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        for runs in pool.map(together, samples):
            for run in runs:
                compare_bits(
                    case, run, wanted,
                    problem=f"{case.name} gives another result while other threads call it",
                    fix="keep no state between or during calls, or guard it with a lock",
                )  # fmt: skip


def compare_bits(
    case: Case, got: Sequence[tuple[str, Any]], wanted: Sequence[tuple[str, Any]],
    *, problem: str, fix: str,
) -> None:  # fmt: skip
    """Compare two outcomes bit for bit.

    Raises:
        OpCheckError: they differ.
    """
    for (name, a), (_, b) in zip(got, wanted, strict=True):
        if not same_bits(a, b):
            seen = difference(a, b, (0.0, 0.0)) or "other bits for the same numbers"
            raise OpCheckError(
                problem,
                op=case.op._schema,
                argument=name,
                declared="deterministic (no tag says otherwise)",
                seen=seen,
                source=case.kernel_source,
                fix=fix,
            )
