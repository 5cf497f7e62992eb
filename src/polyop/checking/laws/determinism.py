"""The laws of repetition: the same call gives the same bits, alone and beside others."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from time import perf_counter
from types import FrameType
from typing import Any

import numpy as np

from polyop.checking.compare import difference, same_bits
from polyop.checking.inputs import resized, rolled
from polyop.checking.law import STAINS, Case, law, outcome, stained_outcome
from polyop.checking.laws.backward import gradient_source
from polyop.checking.laws.fake import take
from polyop.checking.laws.gradient import targets_of
from polyop.checking.laws.kept import compare_between
from polyop.checking.laws.layouts import gradients
from polyop.checking.laws.state import compare_states
from polyop.checking.sample import Sample, leaves_named
from polyop.checking.slope import Slope
from polyop.errors import OpCheckError
from polyop.layers.fake import FakeTensorMode
from polyop.source import PACKAGE
from polyop.tensor.tensor import Tensor

REPEATS = 3
THREADS = 4

#: How often a line is interrupted, and for how many seconds: for a lock, and by all calls.
STOPS, PATIENCE, LONGEST = 2, 0.2, 1.0
RACE = "{} gives another result while other threads call it"
NO_STATE = "keep no state between or during calls, or guard it with a lock"

Leaves = list[tuple[str, Any]]
#: Calls the operator, or one of its rules, and gives what is compared.
Run = Callable[[Case, Sample], Leaves]


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
    compare_states(case)


@law("test_threads", "Calls in several threads give what calls one after another give.")
def threads_law(case: Case) -> None:
    """Call in several threads at once, and compare bits."""
    case.needs_determinism()
    case.needs_repeats()
    # Threads with the same values would not see that they share a place.
    samples = [_taken(case, rolled(case.sample, i)) for i in range(THREADS)]
    wanted = [outcome(case, sample.copy()) for sample in samples]
    compare_interrupted(case, outcome, samples[0], samples[1])
    compare_rules_interrupted(case, samples[0], samples[1])
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


def compare_interrupted(case: Case, run: Run, mine: Sample, other: Sample) -> None:
    """Call, and between the lines of the author's code let another thread make a whole call.

    Races are rare when threads run freely; this way each one that lines can show is met.

    Raises:
        OpCheckError: the interrupted call gives another result.
    """
    wanted = run(case, mine.copy())
    with ThreadPoolExecutor(1) as pool:
        interrupt = Interrupter(lambda: pool.submit(run, case, other.copy()))
        tracing = sys.gettrace()
        sys.settrace(interrupt.enter)
        try:
            got = run(case, mine.copy())
        finally:
            sys.settrace(tracing)
    compare_bits(case, got, wanted, problem=RACE, fix=NO_STATE)


def compare_rules_interrupted(case: Case, mine: Sample, other: Sample) -> None:
    """Do the same with backward and what is kept for it, and with the fake rule.

    Raises:
        OpCheckError: an interrupted rule gives another result.
    """
    if _has_gradient(case, mine, other):
        compare_if_repeated(case, _gradients, mine, other)
    for _, larger in resized(mine):
        if take(case, larger) is not None:
            compare_if_repeated(case, _fakes, mine, larger)
            return


def _has_gradient(case: Case, mine: Sample, other: Sample) -> bool:
    """Tell whether there is one, and it is right when calls do not overlap."""
    if gradient_source(case) is None or case.op._schema.is_mutable:
        return False
    try:
        compare_between(*(Slope(case, s, targets_of(case.sample), 1) for s in (mine, other)))
    except Exception:  # test_gradient tells
        return False
    return True


def compare_if_repeated(case: Case, run: Run, mine: Sample, other: Sample) -> None:
    """Compare where two calls alone give the same; what fails alone is another law's affair.

    Raises:
        OpCheckError: the interrupted call gives another result.
    """
    try:
        first, again = (run(case, mine.copy()) for _ in range(2))
        run(case, other.copy())
    except Exception:  # no race
        return
    if all(same_bits(a, b) for (_, a), (_, b) in zip(first, again, strict=True)):
        compare_interrupted(case, run, mine, other)


def _gradients(case: Case, sample: Sample) -> Leaves:
    return gradients(case, sample, np.asarray)


def _fakes(case: Case, sample: Sample) -> Leaves:
    """Give shapes and dtypes, as a call without data tells them."""
    mode = FakeTensorMode()
    given = sample.map(mode.from_tensor)
    with mode:
        leaves = leaves_named(given.call(case.op), len(case.op._schema.returns))
    return [(name, f"{t.dtype}{list(t.shape)}") for name, t in leaves if isinstance(t, Tensor)]


class Interrupter:
    """A trace function that makes a call between the lines of an author's functions."""

    def __init__(self, call: Callable[[], Future[Any]]) -> None:
        self.call = call
        self.seen: Counter[tuple[str, int]] = Counter()
        self.rest = LONGEST

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Look into the functions that are the author's."""
        file = frame.f_code.co_filename
        return None if file.startswith((PACKAGE, "<")) or "site-packages" in file else self.line

    def line(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Stop before a line, the first times that it is run, while time is left."""
        place = frame.f_code.co_filename, frame.f_lineno
        self.seen[place] += 1
        if self.seen[place] <= STOPS and self.rest > 0:
            began = perf_counter()
            try:
                self.call().result(timeout=PATIENCE)
            except Exception:  # it waits for a lock, or fails as the call alone would
                self.rest = 0.0
            self.rest -= perf_counter() - began
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
