"""The law of layouts: expanded arguments, gradients of sums, and tangents in other orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.checking.test_hostile import ONE, case_of, define, differentiable, square, values

import polyop
from polyop.checking.law import LAWS, Verdict, judge
from polyop.checking.rarer import expanded
from polyop.dispatch.custom_op import CustomOpDef
from polyop.tensor.tensor import Tensor, of_array


def verdict(law: str, op: CustomOpDef, *given: Any) -> Verdict:
    return judge(LAWS[law], case_of(op, *given))


def lies_once(t: Tensor) -> bool:
    return t.numel() > 1 and 0 in t.stride()


@pytest.mark.parametrize("fault", [True, False])
def test_expanded_arguments_are_tried(fault: bool) -> None:
    """S206: a kernel that is wrong where one element stands for many is told, and so a writer."""

    def kernel(x: Tensor) -> Tensor:
        return of_array(x.numpy() * (3 if fault and lies_once(x) else 2))

    def writer(x: Tensor) -> Tensor:
        a = x.numpy()
        if fault and lies_once(x):
            a[...] = 1
        return of_array(a * 2)

    told = verdict("test_layouts", define(ONE, kernel), values(2, 3))
    assert told.broken == fault and ("for expanded arguments" in told.reason) == fault
    assert verdict("test_schema", define(ONE, writer), values(2, 3)).broken == fault


def test_an_expanded_index_that_is_no_permutation_says_nothing() -> None:
    """S206: where two calls with dense arguments differ, or are refused, nothing is compared."""

    def inverse(x: Tensor) -> Tensor:
        a = x.numpy()
        if sorted(a.tolist()) != [*range(len(a))]:
            raise ValueError("a permutation")
        return of_array(np.argsort(a))

    op = define(ONE, inverse, lambda x: x.new_empty(x.shape, dtype=polyop.int64))
    assert verdict("test_layouts", op, of_array(np.array([2, 0, 1]))) == Verdict("holds")


def test_expanded_samples_have_one_element_for_many() -> None:
    """S206: along the first axis, and along the last; what is written lies as it was."""
    case = case_of(define(ONE, square), values(2, 3))
    made = [s.tensors()[0] for _, s in expanded(case.sample)]
    assert [t.stride() for t in made] == [(0, 1), (1, 0)]
    assert [t.shape for t in made] == [(2, 3)] * 2
    written = define("(Tensor(a!) x) -> ()", lambda x: None, lambda x: None, mutates_args=("x",))
    case = case_of(written, values(2, 3))
    assert all(not lies_once(s.tensors()[0]) for _, s in expanded(case.sample))


@pytest.mark.parametrize("fault", ["incoming", "argument", ""])
def test_gradients_of_what_is_expanded_are_tried(fault: str) -> None:
    """S206: an expanded gradient comes in, as that of a sum may, and an expanded argument."""

    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        wrong = lies_once({"incoming": g, "argument": x}[fault]) if fault else False
        return g * x * (6 if wrong else 2)

    op = differentiable(define(ONE, square), backward)
    x = polyop.ones(2, 3).requires_grad_()
    op(x).backward(polyop.ones(1, 1).expand(2, 3))
    assert x.grad is not None
    assert (x.grad.numpy() == (6 if fault == "incoming" else 2)).all()  # what a user sees
    told = verdict("test_layouts", op, values(2, 3).requires_grad_())
    assert told.broken == bool(fault)
    words = {"incoming": "expanded incoming gradients", "argument": "expanded arguments"}
    assert words.get(fault, "") in told.reason


@pytest.mark.parametrize("fault", [True, False])
def test_tangents_in_another_order_are_tried(fault: bool) -> None:
    """S206: a jvp that reads tangents in the order of their memory is told."""

    def jvp(ctx: Any, t: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        found: Tensor = t * 2 * x * (1 if not fault or t.is_contiguous() else 3)
        return found

    op = differentiable(define(ONE, square), lambda ctx, g: g * 2 * ctx.saved_tensors[0])
    op.register_jvp(jvp)
    told = verdict("test_layouts", op, values(2, 3).requires_grad_())
    assert told.broken == fault and ("for transposed tangents" in told.reason) == fault
