"""Trying the laws: `opcheck` for one call, `check_operator` for all samples of an operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polyop.checking.laws  # noqa: F401 - registers the laws
from polyop.checking.derived import derived_samples
from polyop.checking.find import sample_list, split
from polyop.checking.law import LAWS, Case, Law, Verdict, judge, law_named
from polyop.checking.laws.index import FOLLOWING
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
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    test_utils: str | Iterable[str] | None = None,
    raise_exception: bool = True,
    atol: float | None = None,
    rtol: float | None = None,
) -> dict[str, Any]:
    """Try the laws of a right registration on one call of an operator, or on all its samples.

    Args:
        op: a `CustomOpDef`, an overload, or a packet of one overload.
        args: positional arguments; they are copied, and left as they are. Without them and
            `kwargs` the operator's own samples are tried, or those that its index signature gives.
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
        UsageError: no operator, an unknown law, one of `rtol` and `atol` only, no samples.
        UsageTypeError: the arguments are no tuple or list.
    """
    found = _operator(op)
    laws = chosen_laws(test_utils)
    if (atol is None) != (rtol is None):
        raise UsageError(
            "rtol and atol belong together",
            seen=f"rtol={rtol}, atol={atol}",
            fix="give both, or neither",
        )
    for name, bound in (("atol", atol), ("rtol", rtol)):
        if bound is not None and not (isinstance(bound, (int, float)) and bound >= 0):
            raise UsageError(
                f"{name} is a number that is not negative", argument=name, seen=repr(bound),
                fix="give 0 for exact results",
            )  # fmt: skip
    cases = [Case(found, sample, rtol, atol) for sample in _samples(found, args, kwargs)]
    told: dict[str, Any] = {}
    for one in laws:
        verdict = try_law(one, cases).verdict
        if verdict.error is not None and raise_exception:
            raise verdict.error
        told[one.name] = verdict.error or SUCCESS
    return told


def _samples(
    op: OpOverload, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> list[Sample]:
    """Give the one sample of these arguments; without any, the operator's own."""
    if args is None and kwargs is None:
        return own_samples(op)
    given = () if args is None else args
    if not isinstance(given, (tuple, list)):
        raise UsageTypeError(
            "opcheck takes the arguments of a call as one tuple",
            op=op._schema,
            declared="a tuple or list of positional arguments",
            seen=type(given).__name__,
            fix="write opcheck(op, (x,)) where a call is op(x)",
        )
    named = {} if kwargs is None else kwargs
    if not isinstance(named, Mapping):
        raise UsageTypeError(
            "opcheck takes arguments by name as one dict",
            op=op._schema,
            declared="a dict of arguments by name",
            seen=type(named).__name__,
            fix='write opcheck(op, (x,), {"k": 2}) where a call is op(x, k=2)',
        )
    return [sample_of(op, given, named)]


def own_samples(op: OpOverload) -> list[Sample]:
    """Give an operator's registered samples, or those that its index signature gives.

    Raises:
        UsageError: there are none.
    """
    given = op.rule("samples")
    if given is not None:
        found = [sample_of(op, *split(one)) for one in sample_list(op, given)]
    elif all(a.has_default_value() for a in op._schema.arguments):
        found = [sample_of(op, (), {})]
    else:
        found = list(derived_samples(op))
    if not found:
        raise UsageError(
            f"{op.name()} has no samples, and no index signature that gives them",
            op=op._schema,
            source=op.source,
            fix=f"write opcheck(op, (x,)), or register samples (@{op._opname}.samples) "
            'or an index signature (register_index(op, "(n)->(n)"))',
        )
    return found


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
    if not isinstance(names, Iterable):
        raise UsageError(
            "test_utils is the name of a law, or several", argument="test_utils",
            seen=repr(names), fix="leave it out for all laws",
        )  # fmt: skip
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
    found = without_followers(op, [try_law(one, cases) for one in tried])
    findings = without_echoes(found)
    return OperatorReport(op, len(cases), findings, problem)


def without_followers(op: OpOverload, findings: Sequence[Finding]) -> list[Finding]:
    """Where the index signature is broken, do not blame the rules that follow from it."""
    if not any(f.law == "test_index" and f.verdict.broken for f in findings):
        return list(findings)
    reason = "the rule follows from the index signature, which test_index says is not kept"
    derived = {law for law, slot in FOLLOWING.items() if op.places.top(slot) is None}
    return [
        Finding(f.law, Verdict("does not apply", reason))
        if f.verdict.broken and f.law in derived
        else f
        for f in findings
    ]


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
        if i == 0 or (best.kind != "holds" and verdict.kind == "holds"):
            best = verdict
    return Finding(one.name, best)


def describe(sample: Sample, number: int) -> str:
    """Name a sample by its number and the tensors in it."""
    named = [f"{name}: {t.dtype}{list(t.shape)}" for name, t in sample.named()]
    return f"sample {number} ({', '.join(named)})"


__all__ = ["PYTORCH_LAWS", "SUCCESS", "OperatorReport", "check_operator", "opcheck"]
