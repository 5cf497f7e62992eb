"""A law is one function and one sentence; trying it on a case gives a verdict.

A law raises an error of ours where it is broken, raises `DoesNotApply` where
it says nothing, and otherwise returns: nothing, or a note. It never looks at
what kind of operator it has; it calls it, and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np

from polyop.checking.compare import difference, same_bits
from polyop.checking.sample import Sample, array_of, leaves_named
from polyop.checking.streams import fix_streams, kept_streams, standing
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.results import kernel_source
from polyop.errors import OpCheckError, PolyopError, UsageError, nearest, text_of
from polyop.layers.fake import FakeTensorMode
from polyop.objects.effects import has_effects
from polyop.schema.tags import Tag
from polyop.source import PACKAGE
from polyop.symbolic import ShapeEnv, is_symbolic
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
    def sizes_vary(self) -> bool:
        """Whether the size of a result depends on data, by the fake rule."""
        mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)
        try:
            given = self.sample.copy().map(mode.from_tensor)
            with mode:
                found = outcome(self, given)
        except Exception:  # other laws say what is wrong with the rule
            return False
        sizes = [n for _, t in found if isinstance(t, Tensor) for n in t.shape]
        return any(is_symbolic(n) for n in sizes)

    @cached_property
    def repeats(self) -> bool:
        """Whether two calls give the same bits, and all of many of an operator that may draw."""
        runs = self._again()
        draws = Tag.nondeterministic_seeded in self.op.tags
        before = standing(self.sample) if draws else ""
        first = next(runs)
        for again in islice(runs, MANY if draws else 1):
            if not all(same_bits(a, b) for (_, a), (_, b) in zip(first, again, strict=True)):
                return False
        return not draws or standing(self.sample) == before

    def rounds_alike(self) -> bool:
        """Tell whether a few calls give the same but for rounding."""
        runs = self._again()
        first = next(runs)
        pairs = [zip(again, first, strict=True) for again in islice(runs, FEW)]
        return not any(difference(a, b, self.tolerance) for row in pairs for (_, a), (_, b) in row)

    def _again(self) -> Iterator[list[tuple[str, Any]]]:
        """Call again and again."""
        first = outcome(self, self.sample.copy())
        yield first
        while True:
            yield stained_outcome(self, first, STAINS[0])

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
        if has_effects(self.op):
            self.needs_determinism()
        if Tag.nondeterministic_bitwise in self.op.tags and self.rounds_alike():
            return
        if not self.repeats:
            self.needs_determinism()
            raise DoesNotApply("two equal calls differ, as test_determinism says")

    def needs_function(self) -> None:
        """Stop a law where calls differ, even if what they draw from is fixed before each.

        Raises:
            DoesNotApply: so it is.
        """
        if Tag.nondeterministic_seeded in self.op.tags and not has_effects(self.op):
            fix_streams()
            if self.rounds_alike():
                return
        self.needs_repeats()


def outcome(case: Case, sample: Sample) -> list[tuple[str, Any]]:
    """Give the results of a call, and the new values of what it writes."""
    result = sample.call(case.op)
    written = sample.written()
    return [
        *leaves_named(result, len(case.op._schema.returns)),
        *((f"argument {name!r}", t) for name, t in sample.named() if id(t) in written),
    ]


#: How many calls say that an operator which may draw random numbers does not, and that one which
#: may round otherwise hardly does.
MANY, FEW = 16, 3

#: What is left in freed memory before a call, in how many places of each size, and up to which.
STAINS, ROOMS, LARGEST_ROOM = (0x55, 0x2A), 16, 1 << 20


def stained_outcome(case: Case, before: list[tuple[str, Any]], byte: int) -> list[tuple[str, Any]]:
    """Call again, with this byte in freed memory, where results are likely to be made.

    Elements that a kernel forgets to fill are often the same in two calls.
    """
    given = case.sample.copy()
    stain([array_of(t).nbytes for _, t in before if isinstance(t, Tensor)], byte)
    return outcome(case, given)


def stain(sizes: Iterable[int], byte: int) -> None:
    """Leave this byte in freed memory, in rooms of these sizes."""
    for size in {*sizes}:
        if size <= LARGEST_ROOM:
            # All at once: memory that is free already would be taken again and again.
            rooms = [np.full(size, byte, np.uint8) for _ in range(ROOMS)]
            del rooms


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
        with np.errstate(all="ignore"), _kept_streams(case):
            note = one.trial(case)
    except DoesNotApply as why:
        return Verdict("does not apply", str(why))
    except PolyopError as error:
        told = breach(one, case, error)
        return Verdict("broken", told.problem, told)
    except (Exception, SystemExit) as error:  # an author's rule may raise anything
        told = breach(one, case, stumble(case, error))
        told.__cause__ = error
        return Verdict("broken", told.problem, told)
    return Verdict("holds", note or "")


def _kept_streams(case: Case) -> AbstractContextManager[None]:
    draws = Tag.nondeterministic_seeded in case.op.tags
    return kept_streams(case.sample) if draws else nullcontext()


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


def stumble(case: Case, error: BaseException) -> PolyopError:
    """Describe an exception that is not ours, with the line that raised it."""
    return PolyopError(
        f"{case.name} raised {type(error).__name__}: {text_of(error)}",
        source=author_line(error) or str(case.kernel_source),
        fix="make its rules take what the kernel takes, or let the kernel refuse it"
        if _takes_its_sample(case)
        else "make the operator take this sample, or change the sample",
    )


def _takes_its_sample(case: Case) -> bool:
    """Tell whether the plain call works, so that a rule failed, or inputs that were made."""
    try:
        case.run()
    except (Exception, SystemExit):
        return False
    return True


def author_line(error: BaseException) -> str:
    """Give the last line of an author's on the way to an error; nothing if there is none."""
    trace, where = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        # The author's line, not what it called in a library.
        if not file.startswith((PACKAGE, "<")) and "site-packages" not in file:
            where = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return where


__all__ = ["LAWS", "Case", "DoesNotApply", "Law", "Verdict", "judge", "law", "law_named"]
