"""Trying the laws: `opcheck` for one call, `check_operator` for all samples of an operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polyop.checking.laws  # noqa: F401 - registers the laws
from polyop.checking.law import LAWS, Case, Law, Verdict, judge, law_named
from polyop.checking.sample import Sample, sample_of
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import as_operator
from polyop.errors import UsageError, UsageTypeError

SUCCESS = "SUCCESS"
#: The laws that PyTorch's `opcheck` tries by default.
PYTORCH_LAWS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)


def opcheck(
    op: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    test_utils: str | Iterable[str] | None = None,
    raise_exception: bool = True,
    atol: float | None = None,
    rtol: float | None = None,
) -> dict[str, Any]:
    """Try the laws of a right registration on one call of an operator.

    Args:
        op: a `CustomOpDef`, an overload, or a packet of one overload.
        args: positional arguments; they are copied, and left as they are.
        kwargs: arguments by name.
        test_utils: the name of a law, or several; all laws if not given.
        raise_exception: whether the first broken law raises.
        atol: the absolute difference that results may have.
        rtol: the relative difference that results may have; `0` with `atol=0` is exact.

    Returns:
        Each law's name with `"SUCCESS"`, which also stands for a law that
        says nothing here, or with the exception.

    Raises:
        OpCheckError: a law is broken, with `raise_exception`.
        UsageError: no operator, an unknown law, one of `rtol` and `atol` only.
    """
    found = _operator(op)
    laws = chosen_laws(test_utils)
    if (atol is None) != (rtol is None):
        raise UsageError(
            "rtol and atol belong together",
            seen=f"rtol={rtol}, atol={atol}",
            fix="give both, or neither",
        )
    case = Case(found, sample_of(found, args, kwargs or {}), rtol, atol)
    told: dict[str, Any] = {}
    for one in laws:
        verdict = judge(one, case)
        if verdict.error is not None and raise_exception:
            raise verdict.error
        told[one.name] = verdict.error or SUCCESS
    return told


def _operator(op: Any) -> OpOverload:
    if isinstance(op, str):
        raise UsageTypeError(
            "opcheck takes an operator", seen=repr(op), fix="give the operator itself"
        )
    return as_operator(op)


def chosen_laws(names: str | Iterable[str] | None) -> list[Law]:
    """Give the laws of the given names, all without names.

    Raises:
        UsageError: an unknown law.
    """
    if names is None:
        return list(LAWS.values())
    return [law_named(name) for name in ((names,) if isinstance(names, str) else names)]


# -- all samples of an operator -----------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict of one law over all samples of an operator."""

    law: str
    verdict: Verdict
    sample: str = ""


@dataclass(frozen=True, slots=True)
class OperatorReport:
    """What the laws say of one operator."""

    op: OpOverload
    samples: int
    findings: list[Finding] = field(default_factory=list)
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the operator was checked, and breaks no law."""
        return not self.broken and not self.problem

    @property
    def broken(self) -> list[Finding]:
        """The findings that are broken laws."""
        return [f for f in self.findings if f.verdict.broken]


def check_operator(
    op: OpOverload,
    samples: Sequence[Sample],
    laws: Sequence[Law] | None = None,
    *,
    problem: str = "",
) -> OperatorReport:
    """Try laws on every sample of an operator; the first breach of each law is kept.

    Args:
        op: the operator.
        samples: lists of its arguments.
        laws: to try; all if not given.
        problem: why it cannot be checked, if so.
    """
    cases = [Case(op, sample) for sample in samples]
    tried = list(LAWS.values()) if laws is None else laws
    findings = without_echoes([try_law(one, cases) for one in tried])
    return OperatorReport(op, len(cases), findings, problem)


def without_echoes(findings: Sequence[Finding]) -> list[Finding]:
    """Keep the first finding of each breach: a call that fails does so under every law."""
    first: dict[Any, str] = {}
    kept = []
    for found in findings:
        error = found.verdict.error
        if error is not None:
            breach = (error.problem.removeprefix(f"{found.law}: "), error.source)
            if first.setdefault(breach, found.law) != found.law:
                again = Verdict("does not apply", f"fails as {first[breach]} does")
                found = Finding(found.law, again)  # noqa: PLW2901
        kept.append(found)
    return kept


def try_law(one: Law, cases: Sequence[Case]) -> Finding:
    """Try one law on several cases: broken if once broken, else holding if it once holds."""
    best = Verdict("does not apply", "the operator has no samples")
    for i, case in enumerate(cases):
        verdict = judge(one, case)
        if verdict.broken:
            return Finding(one.name, verdict, describe(case.sample, i))
        if best.kind != "holds":
            best = verdict
    return Finding(one.name, best)


def describe(sample: Sample, number: int) -> str:
    """Name a sample by its number and the tensors in it."""
    named = [f"{name}: {t.dtype}{list(t.shape)}" for name, t in sample.named()]
    return f"sample {number} ({', '.join(named)})"


__all__ = ["PYTORCH_LAWS", "SUCCESS", "OperatorReport", "check_operator", "opcheck"]
