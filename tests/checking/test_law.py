"""Laws and verdicts: what trying a law gives, and how several verdicts become one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.checking.law import Case, DoesNotApply, Law, judge
from polyop.checking.run import Finding, check_operator, try_law, without_echoes
from polyop.checking.sample import sample_of
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import find_operator
from polyop.errors import AliasError, OpCheckError
from polyop.tensor.tensor import of_array

ADD = "core::add"


@pytest.fixture
def op() -> OpOverload:
    return find_operator(ADD)


@pytest.fixture
def cases(op: OpOverload) -> list[Case]:
    arrays = [of_array(np.ones(n)) for n in (1, 2, 3)]
    return [Case(op, sample_of(op, (x, x), {})) for x in arrays]


def law(trial: Any) -> Law:
    return Law("test_it", "It is so.", trial)


def test_a_law_that_returns_holds(cases: list[Case]) -> None:
    """A law that returns holds, and what it returns is its note."""
    verdict = judge(law(lambda case: "a note"), cases[0])
    assert (verdict.kind, verdict.reason, verdict.error) == ("holds", "a note", None)


def test_a_law_may_say_nothing(cases: list[Case]) -> None:
    """`DoesNotApply` gives the verdict of that name, with its reason."""

    def trial(case: Case) -> None:
        raise DoesNotApply("no tensors")

    verdict = judge(law(trial), cases[0])
    assert (verdict.kind, verdict.reason) == ("does not apply", "no tensors")


def test_an_error_of_ours_breaks_a_law_and_keeps_its_parts(cases: list[Case]) -> None:
    """A broken law is an OpCheckError from the error inside, with all of its parts."""
    parts = {"argument": "x", "declared": "d", "seen": "s", "source": "f.py:3", "fix": "do it"}

    def trial(case: Case) -> None:
        raise AliasError("it is shared", op="ns::op", **parts)

    error = judge(law(trial), cases[0]).error
    assert isinstance(error, OpCheckError) and isinstance(error.__cause__, AliasError)
    assert error.problem == "test_it: it is shared" and error.op == "ns::op"
    assert {name: getattr(error, name) for name in parts} == parts


def test_an_error_without_a_fix_gets_the_law(cases: list[Case]) -> None:
    """Where an error says nothing of what to do, the law's sentence stands there."""

    def trial(case: Case) -> None:
        raise AliasError("it is shared")

    error = judge(law(trial), cases[0]).error
    assert error is not None and error.fix == "the law is: It is so."


def test_one_breach_is_enough(cases: list[Case]) -> None:
    """Over several samples a law is broken if once broken, with the sample that breaks it."""

    def trial(case: Case) -> None:
        if case.sample.tensors()[0].size == 2:
            raise AliasError("it is shared")

    found = try_law(law(trial), cases)
    assert found.verdict.broken
    first, second = (a.name for a in cases[0].op._schema.arguments)
    assert found.sample == f"sample 1 ({first}: float64[2], {second}: float64[2])"


def test_holding_once_is_holding(cases: list[Case]) -> None:
    """Over several samples a law holds if it applies to one of them."""

    def trial(case: Case) -> None:
        if case.sample.tensors()[0].size != 2:
            raise DoesNotApply("another size")

    assert try_law(law(trial), cases).verdict.kind == "holds"
    assert try_law(law(trial), cases[:1]).verdict.kind == "does not apply"
    assert try_law(law(trial), []).verdict.reason == "the operator has no samples"


def test_echoes_are_one_finding(cases: list[Case]) -> None:
    """One fault that fails every law is told once, by the first; other faults stay."""

    def trials() -> Iterator[Finding]:
        for name, problem in (("a", "same"), ("b", "same"), ("c", "other")):

            def trial(case: Case, problem: str = problem) -> None:
                raise AliasError(problem, source="f.py:3")

            yield try_law(Law(name, "It is so.", trial), cases)

    first, echo, other = without_echoes(list(trials()))
    assert first.verdict.broken and other.verdict.broken
    assert (echo.verdict.kind, echo.verdict.reason) == ("does not apply", "fails as a does")


def test_a_problem_is_no_success(op: OpOverload) -> None:
    """An operator that could not be checked is not all right."""
    assert not check_operator(op, [], problem="no samples").ok
    assert check_operator(op, []).ok
