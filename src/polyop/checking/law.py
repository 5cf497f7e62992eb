"""A law is one function and one sentence; trying it on a case gives a verdict.

A law raises an error of ours where it is broken, raises `DoesNotApply` where
it says nothing, and otherwise returns: nothing, or a note. It never looks at
what kind of operator it has; it calls it, and compares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from polyop.checking.compare import same_bits
from polyop.checking.sample import Sample, array_of, leaves_named
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.results import kernel_source
from polyop.errors import OpCheckError, PolyopError, UsageError, nearest
from polyop.objects.effects import has_effects
from polyop.schema.tags import Tag
from polyop.source import PACKAGE
from polyop.tensor.tensor import Tensor

Kind = Literal["holds", "broken", "does not apply"]


class DoesNotApply(Exception):  # noqa: N818 - not an error: it says why a law says nothing
    """Raised by a law that says nothing of this operator, or of this sample."""


@dataclass(frozen=True)
class Case:
    """An operator, one sample of its arguments, and how exact results are."""

    op: OpOverload
    sample: Sample
    rtol: float | None = None
    atol: float | None = None

    @property
    def tolerance(self) -> tuple[float | None, float | None]:
        """How far results may differ, where the caller said so."""
        return self.rtol, self.atol

    @property
    def name(self) -> str:
        """The operator's name."""
        return self.op.name()

    @property
    def kernel_source(self) -> Any:
        """The place of the kernel that most likely runs."""
        return kernel_source(self.op)

    def sample_name(self, i: int) -> str:
        """Name the sample's tensor of that number."""
        return list(self.sample.named())[i][0]

    def run(self, sample: Sample | None = None) -> Any:
        """Call the operator on copies, without gradients."""
        return (sample or self.sample).copy().call(self.op)

    @cached_property
    def repeats(self) -> bool:
        """Whether two calls give the same bits."""
        first = outcome(self, self.sample.copy())
        again = stained_outcome(self, first, STAINS[0])
        return all(same_bits(a, b) for (_, a), (_, b) in zip(first, again, strict=True))

    def needs_determinism(self) -> None:
        """Stop a law that compares bits, where the operator says that they differ.

        Raises:
            DoesNotApply: so it is.
        """
        for tag in (Tag.nondeterministic_seeded, Tag.nondeterministic_bitwise):
            if tag in self.op.tags:
                raise DoesNotApply(f"the operator has the tag {tag.name}")
        if has_effects(self.op):
            raise DoesNotApply("the operator has an effect, so a call may change the next one")

    def needs_repeats(self) -> None:
        """Stop a law that compares values, where two calls differ anyway.

        Raises:
            DoesNotApply: so it is.
        """
        self.needs_determinism()
        if not self.repeats:
            raise DoesNotApply("two equal calls differ, as test_determinism says")


def outcome(case: Case, sample: Sample) -> list[tuple[str, Any]]:
    """Give the results of a call, and the new values of what it writes."""
    result = sample.call(case.op)
    written = sample.written()
    return [
        *leaves_named(result, len(case.op._schema.returns)),
        *((f"argument {name!r}", t) for name, t in sample.named() if id(t) in written),
    ]


#: What is left in freed memory before a call, in how many places of each size, and up to which.
STAINS, ROOMS, LARGEST_ROOM = (0x55, 0x2A), 16, 1 << 20


def stained_outcome(case: Case, before: list[tuple[str, Any]], stain: int) -> list[tuple[str, Any]]:
    """Call again, with this byte in freed memory, where results are likely to be made.

    Elements that a kernel forgets to fill are often the same in two calls.
    """
    given = case.sample.copy()
    for size in {array_of(t).nbytes for _, t in before if isinstance(t, Tensor)}:
        if size <= LARGEST_ROOM:
            # All at once: memory that is free already would be taken again and again.
            rooms = [np.full(size, stain, np.uint8) for _ in range(ROOMS)]
            del rooms
    return outcome(case, given)


Trial = Callable[[Case], str | None]


@dataclass(frozen=True, slots=True)
class Law:
    """One property of a right registration."""

    name: str
    sentence: str
    trial: Trial


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of trying a law.

    Attributes:
        kind: holds, broken, or does not apply.
        reason: why it is broken or does not apply; a note where it holds.
        error: what a broken law raises.
    """

    kind: Kind
    reason: str = ""
    error: OpCheckError | None = None

    @property
    def broken(self) -> bool:
        """Whether the law is broken."""
        return self.kind == "broken"


#: Every law by its name, in the order in which they are tried.
LAWS: dict[str, Law] = {}


def law(name: str, sentence: str) -> Callable[[Trial], Trial]:
    """Register a law; decorates the function that tries it."""

    def register(trial: Trial) -> Trial:
        LAWS[name] = Law(name, sentence, trial)
        return trial

    return register


def law_named(name: str) -> Law:
    """Find a law.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in LAWS:
        raise UsageError(
            f"there is no law {name!r}{nearest(name, LAWS)}", declared=", ".join(LAWS), seen=name
        )
    return LAWS[name]


def judge(one: Law, case: Case) -> Verdict:
    """Try a law on a case."""
    try:
        # Infinities and nan are compared as any other value; NumPy need not warn of them.
        with np.errstate(all="ignore"):
            note = one.trial(case)
    except DoesNotApply as why:
        return Verdict("does not apply", str(why))
    except PolyopError as error:
        told = breach(one, case, error)
        return Verdict("broken", told.problem, told)
    except Exception as error:  # an author's rule may raise anything
        told = breach(one, case, stumble(case, error))
        told.__cause__ = error
        return Verdict("broken", told.problem, told)
    return Verdict("holds", note or "")


def breach(one: Law, case: Case, cause: PolyopError) -> OpCheckError:
    """Say which law an error breaks; all its parts are kept."""
    told = OpCheckError(
        f"{one.name}: {cause.problem}",
        op=cause.op or case.op._schema,
        argument=cause.argument,
        declared=cause.declared,
        seen=cause.seen,
        source=cause.source or case.op.source,
        fix=cause.fix or f"the law is: {one.sentence}",
    )
    told.__cause__ = cause
    return told


def stumble(case: Case, error: Exception) -> PolyopError:
    """Describe an exception that is not ours, with the line that raised it."""
    trace, where = error.__traceback__, str(case.kernel_source)
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        # The author's line, not what it called in a library.
        if not file.startswith((PACKAGE, "<")) and "site-packages" not in file:
            where = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return PolyopError(
        f"{case.name} raised {type(error).__name__}: {error}",
        source=where,
        fix="make the operator and its rules take this sample, or change the sample",
    )


__all__ = ["LAWS", "Case", "DoesNotApply", "Law", "Verdict", "judge", "law", "law_named"]
