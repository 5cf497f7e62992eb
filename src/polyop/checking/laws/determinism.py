"""The laws of repetition: the same call gives the same bits, alone and beside others."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from types import FrameType
from typing import Any

import numpy as np

from polyop.checking.compare import difference, same_bits
from polyop.checking.inputs import rolled
from polyop.checking.law import STAINS, Case, law, outcome, stained_outcome
from polyop.checking.laws.fake import take
from polyop.checking.sample import Sample
from polyop.errors import OpCheckError
from polyop.source import PACKAGE

REPEATS = 3
THREADS = 4

#: How often a line is interrupted, how many lines are, and how long a call may wait for a lock.
STOPS, MOST_LINES, PATIENCE = 2, 12, 0.2
RACE = "{} gives another result while other threads call it"
NO_STATE = "keep no state between or during calls, or guard it with a lock"

Leaves = list[tuple[str, Any]]


@law("test_determinism", "The same arguments give the same results, bit for bit.")
def determinism_law(case: Case) -> None:
    """Call several times, and compare bits."""
    case.needs_determinism()
    first = outcome(case, case.sample.copy())
    for stain in STAINS:
        again = stained_outcome(case, first, stain)
        compare_bits(
            case, again, first,
            problem="{} gives another result for the same arguments",
            fix="draw random numbers from an argument (a seed, a generator), keep no state, or say "
            "so: tags=(Tag.nondeterministic_seeded,)",
        )  # fmt: skip


@law("test_threads", "Calls in several threads give what calls one after another give.")
def threads_law(case: Case) -> None:
    """Call in several threads at once, and compare bits."""
    case.needs_repeats()
    # Threads with the same values would not see that they share a place.
    samples = [_taken(case, rolled(case.sample, i)) for i in range(THREADS)]
    wanted = [outcome(case, sample.copy()) for sample in samples]
    compare_interrupted(case, samples[0], samples[1])
    start = Barrier(THREADS)

    def together(sample: Sample) -> list[Leaves]:
        start.wait(timeout=60)
        with np.errstate(all="ignore"):  # a thread begins with the default
            return [outcome(case, sample.copy()) for _ in range(REPEATS)]

    with _impatient(), ThreadPoolExecutor(THREADS) as pool:
        for runs, alone in zip(pool.map(together, samples), wanted, strict=True):
            for run in runs:
                compare_bits(
                    case, run, alone,
                    problem=RACE, fix=NO_STATE,
                )  # fmt: skip


def compare_interrupted(case: Case, mine: Sample, other: Sample) -> None:
    """Call, and between the lines of the author's code let another thread make a whole call.

    Races are rare when threads run freely; this way each one that lines can show is met.

    Raises:
        OpCheckError: the interrupted call gives another result.
    """
    wanted = outcome(case, mine.copy())
    with ThreadPoolExecutor(1) as pool:
        interrupt = Interrupter(lambda: pool.submit(outcome, case, other.copy()))
        tracing = sys.gettrace()
        sys.settrace(interrupt.enter)
        try:
            got = outcome(case, mine.copy())
        finally:
            sys.settrace(tracing)
    compare_bits(case, got, wanted, problem=RACE, fix=NO_STATE)


class Interrupter:
    """A trace function that makes a call between the lines of an author's functions."""

    def __init__(self, call: Callable[[], Future[Any]]) -> None:
        self.call = call
        self.seen: Counter[tuple[str, int]] = Counter()

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Look into the functions that are the author's."""
        file = frame.f_code.co_filename
        return None if file.startswith((PACKAGE, "<")) or "site-packages" in file else self.line

    def line(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Stop before a line, the first times that it is run."""
        place = frame.f_code.co_filename, frame.f_lineno
        self.seen[place] += 1
        if self.seen[place] <= STOPS and len(self.seen) <= MOST_LINES:
            try:
                self.call().result(timeout=PATIENCE)
            except Exception:  # it waits for a lock, or fails as the call alone would
                self.seen.update({("", i): 1 for i in range(MOST_LINES)})
        return self.line


def _taken(case: Case, sample: Sample) -> Sample:
    """Give a sample, or the case's own if the operator refuses it."""
    return case.sample if take(case, sample) is None else sample


@contextmanager
def _impatient() -> Iterator[None]:
    """Let threads take turns as often as Python can."""
    patience = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(patience)


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
                problem.format(case.name),
                op=case.op._schema,
                argument=name,
                declared="deterministic (no tag says otherwise)",
                seen=seen,
                source=case.kernel_source,
                fix=fix,
            )
