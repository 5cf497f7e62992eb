"""What the trials on all libraries have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from polyop.checking.capabilities.subject import Fn, Subject, compare
from polyop.checking.law import DoesNotApply

Trial = Callable[[Subject], str | None]


class TrierBase:
    """Tries a method on the samples of an operator: of the capability's name, with underscores."""

    #: What takes long is tried on the first sample to which it applies.
    LONG = frozenset(("compile", "dynamic shapes", "export", "second order", "vmap"))
    library = ""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self.subjects = list(subjects)

    def trial(self, capability: str) -> Callable[[], str | None]:
        """Give what tries a capability."""
        one = getattr(self, capability.replace(" ", "_").replace("-", "_"))
        return partial(self._every, one, capability in self.LONG)

    def _every(self, one: Trial, short: bool) -> str | None:
        why, note, done = "there are no samples", None, False
        for subject in self.subjects:
            try:
                note = one(subject) or note
                done = True
            except DoesNotApply as error:
                why = str(error)
            if done and short:
                break
        if not done:
            raise DoesNotApply(why)
        return note

    # -- arrays of the library --------------------------------------------------------------

    def arrays(self, subject: Subject) -> list[Any]:
        """Give the sample's arrays as the library's.

        Raises:
            DoesNotApply: it has none.
        """
        subject.needs_tensors()
        return [self.array(a) for a in subject.copies()]

    def array(self, given: Any) -> Any:
        """Give an array as one of the library's."""
        raise NotImplementedError

    def run(self, subject: Subject, f: Fn, what: str = "") -> None:
        """Call a function with the library's arrays, and compare with NumPy."""
        compare(subject, subject.leaves(f(*self.arrays(subject))), subject.results, what)
