"""Trials on NumPy: the laws, and programs that are compiled and saved."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from polyop.checking.capabilities.cells import Differs
from polyop.checking.capabilities.derivatives import agree, pushed, tangents_of
from polyop.checking.capabilities.subject import Subject, compare
from polyop.checking.capabilities.trier import TrierBase
from polyop.checking.law import Case, DoesNotApply, judge, law_named
from polyop.compile.compiled import compile as compiled
from polyop.errors import MissingFakeError, PolyopError
from polyop.export.capture import export
from polyop.export.file import load, save
from polyop.tensor.tensor import of_array


class OnNumpy(TrierBase):
    """Tries capabilities on tensors of NumPy's arrays."""

    library = "numpy"

    def arrays(self, subject: Subject) -> list[Any]:
        """Give tensors; an operator without tensors is called all the same."""
        return [of_array(a) for a in subject.copies()]

    def eager(self, subject: Subject) -> None:
        """Compare writes, sharing, shapes and dtypes with what is declared."""
        try:
            compare(subject, subject.results, subject.results)
        except PolyopError as error:
            raise Differs(f"a sample is refused: {error.problem}") from error
        hold(subject, "test_schema")

    def grad(self, subject: Subject) -> str | None:
        """Compare with finite differences."""
        assert subject.wanted
        return hold(subject, "test_gradient")

    def second_order(self, subject: Subject) -> str | None:
        """Compare with finite differences."""
        assert subject.wanted
        return hold(subject, "test_second_order")

    def forward_mode(self, subject: Subject) -> str | None:
        """Compare the tangents of forward mode with those that gradients give."""
        subject.needs_tensors()
        agree(subject, pushed(subject).found, tangents_of(subject).found, "tangent")
        return None

    def vmap(self, subject: Subject) -> str | None:
        """Compare with the loop."""
        subject.needs_tensors()
        if subject.op.rule("vmap") is None:
            return "there is no vmap rule, so vmap is a loop"
        return hold(subject, "test_vmap")

    def compile(self, subject: Subject) -> None:
        """Compare a compiled program with the call, and what the fake rule says of it."""
        with suppress(DoesNotApply, MissingFakeError):  # compiling says so itself
            hold(subject, "test_faketensor")
        self.run(subject, compiled(subject.function(), fullgraph=True))

    def dynamic_shapes(self, subject: Subject) -> None:
        """Run a program of symbolic sizes at two sizes."""
        subject.needs_tensors()
        program = compiled(subject.function(), fullgraph=True, dynamic=True)
        for one in (subject, subject.resized()):
            self.run(one, program)

    def export(self, subject: Subject) -> None:
        """Save a program, load it, and run it."""
        program = export(subject.function(), tuple(self.arrays(subject)))
        with TemporaryDirectory() as folder:
            file = Path(folder) / "program"
            save(program, file)
            self.run(subject, load(file).module())

    def mutation(self, subject: Subject) -> str | None:
        """Look that what is written is what is declared."""
        return hold(subject, "test_schema")

    def data_dependent_sizes(self, subject: Subject) -> str | None:
        """Look that the fake rule gives a size that is not known."""
        return hold(subject, "test_faketensor")


def hold(subject: Subject, name: str) -> str | None:
    """Try a law.

    Raises:
        OpCheckError: it is broken.
        PolyopError: there is no rule, so that there is nothing to try.
        DoesNotApply: it says nothing.
    """
    verdict = judge(law_named(name), Case(subject.op, subject.sample))
    if verdict.kind == "does not apply":
        raise DoesNotApply(verdict.reason)
    if verdict.error is not None:
        cause = verdict.error.__cause__
        raise cause if isinstance(cause, PolyopError) and _is_missing(cause) else verdict.error
    return None


def _is_missing(error: PolyopError) -> bool:
    return isinstance(error, NotImplementedError)
