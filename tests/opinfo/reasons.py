"""Why a sample is not compared, and which differences are known.

Every sample ends in one of three ways: it passes, it is skipped with a `Reason`,
or it fails. A known difference is a skip too, and says in one sentence what
differs; it is looked up only where the comparison fails, so that it never hides
an operator that agrees.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NoReturn


class Reason(Enum):
    """Why a sample, or a check of it, is not compared."""

    PROMOTION = "promotion is NumPy's, so the dtype differs; the values agree"
    LAYOUT = "the memory order of the result is NumPy's; shape, dtype and values agree"
    ARGUMENT = "the sample passes an argument that the operator here does not have"
    DTYPE = "the operator here does not take this dtype"
    FORM = "the sample is a form of call that does not exist here"
    NO_ORACLE = "PyTorch has no such derivative for this operator or dtype"
    NOT_SMOOTH = "the results are not differentiable, or do not depend on a tensor"
    NO_TENSOR = "the sample has no tensor to batch, or the operator returns none"
    DATA_SHAPE = "the shape of the result depends on data, which a batch cannot have"
    RANDOM = "the values are random: only shape and dtype are compared"
    CHOICE = "both answers are right: the operator leaves a choice, such as the order of ties"
    UNDEFINED = "the derivative does not exist at this point, and both conventions stand"
    KNOWN = "a documented difference (see the table of differences)"


class SkipSample(Exception):
    """A sample, or a check of it, is not compared."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def skip(reason: Reason) -> NoReturn:
    """Leave the sample out."""
    raise SkipSample(reason)


def unless(given: Any, *fine: Any, reason: Reason = Reason.ARGUMENT) -> None:
    """Leave the sample out if an argument is not one of those that exist here."""
    if not any(given is f or (type(given) is type(f) and given == f) for f in fine):
        skip(reason)
