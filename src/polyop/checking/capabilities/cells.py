"""One cell of the matrix: what came of trying one capability of one operator on one library."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from polyop.checking.law import DoesNotApply
from polyop.errors import (
    AliasError,
    GradcheckError,
    MetadataMismatchError,
    OpCheckError,
    PolyopError,
    ReturnError,
    first_line,
    text_of,
)

Kind = Literal["works", "refused", "wrong", "fails", "not applicable", "not installed"]
#: What is tried, in the order of the columns.
CAPABILITIES = (
    "eager",
    "grad",
    "second order",
    "forward mode",
    "vmap",
    "compile",
    "dynamic shapes",
    "export",
    "mutation",
    "data-dependent sizes",
)
#: Cells of these kinds are faults: a result that is not NumPy's, an error that is nobody's answer.
FAULTS = frozenset(("wrong", "fails"))
#: Errors that say that an operator's own parts contradict each other.
BREACHES = (OpCheckError, GradcheckError, AliasError, ReturnError, MetadataMismatchError)
#: An error of ours in the text of another.
OURS = re.compile(r"polyop\.errors\.(\w+): (.*)")
#: How deep the causes of an error are looked through.
DEEP = 20


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of trying one capability.

    Attributes:
        kind: works; refused, by an error of ours; wrong, since a result differs from NumPy's;
            fails, with another error; not applicable; or not installed.
        reason: why it is so; a remark where it works.
    """

    kind: Kind
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the cell is no fault."""
        return self.kind not in FAULTS


class Differs(Exception):  # noqa: N818 - not an error of the program: it says what was found
    """Raised where a library's result is not what NumPy's is."""


Trial = Callable[[], str | None]


def cell_of(trial: Trial) -> Cell:
    """Try one capability."""
    try:
        with warnings.catch_warnings():
            # What frameworks say of themselves, or an operator of its speed, is no finding here.
            warnings.simplefilter("ignore")
            note = trial()
    except DoesNotApply as why:
        return Cell("not applicable", str(why))
    except Differs as found:
        return Cell("wrong", str(found))
    except BREACHES as found:
        return Cell("wrong", found.problem)
    except (Exception, SystemExit) as error:  # an author's rule, or a framework, may raise anything
        return _raised(error)
    return Cell("works", note or "")


def _raised(error: BaseException) -> Cell:
    ours = _cause(error)
    if ours is not None:
        return Cell("wrong" if isinstance(ours, BREACHES) else "refused", ours.problem)
    told = OURS.search(text_of(error))
    if told is not None:  # a compiled program knows errors as text alone
        breach = told[1] in {cls.__name__ for cls in BREACHES}
        return Cell("wrong" if breach else "refused", told[2])
    kind = type(error).__name__
    refused = isinstance(error, NotImplementedError) or kind == "Unsupported"
    first = error if refused else _first(error)
    said = (first_line(first) or kind)[:200]
    return Cell("refused", said) if refused else Cell("fails", f"{type(first).__name__}: {said}")


def _first(error: BaseException) -> BaseException:
    """Give the error with which it began."""
    for _ in range(DEEP):
        below = error.__cause__ or error.__context__
        if below is None:
            break
        error = below
    return error


def _cause(error: BaseException | None) -> PolyopError | None:
    """Give the error of ours among an error's causes: frameworks wrap what they meet."""
    for _ in range(DEEP):
        if error is None or isinstance(error, PolyopError):
            return error
        error = error.__cause__ or error.__context__
    return None
