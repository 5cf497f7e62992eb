"""Laws that an operator breaks only together with a registration: autograd, traces, autocast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.checking.test_hostile import ONE, case_of, define, differentiable, square, values

from polyop import Tensor
from polyop.checking.law import LAWS, judge
from polyop.checking.laws import gradient
from polyop.checking.run import opcheck
from polyop.errors import AutogradError, MetadataMismatchError
from polyop.tensor.tensor import of_array


def doubled_slope(ctx: Any, g: Tensor) -> Tensor:
    found: Tensor = g * 2 * ctx.saved_tensors[0]
    return found


# -- autograd -----------------------------------------------------------------------


def test_a_history_that_nobody_registered_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """S203: a result that requires grad, with a history but no registration, breaks the law."""
    op = differentiable(define(ONE, square), doubled_slope)
    case = case_of(op, values(2, 3).requires_grad_())
    assert judge(LAWS["test_autograd_registration"], case).kind == "holds"
    monkeypatch.setattr(gradient, "gradient_source", lambda case: None)
    error = judge(LAWS["test_autograd_registration"], case).error
    assert error is not None and isinstance(error.__cause__, AutogradError)
    assert "the result of hostile::" in error.problem and "requires grad" in error.problem
    assert "register_autograd" in error.fix and "no kernel at an autograd key" in error.declared


def test_without_a_gradient_that_is_asked_for_nothing_is_said() -> None:
    """S203: the law is skipped, and says so, where no input requires grad."""
    verdict = judge(LAWS["test_autograd_registration"], case_of(define(ONE, square), values(2)))
    assert verdict.kind == "does not apply"
    assert verdict.reason == "no argument of the sample requires grad"


def test_a_result_whose_backward_raises_has_no_history() -> None:
    """S203: an operator without gradient, whose backward says so, does not break this law."""
    case = case_of(define(ONE, square), values(2).requires_grad_())
    assert judge(LAWS["test_autograd_registration"], case).kind == "holds"


# -- traces -------------------------------------------------------------------------

TRACES = ("test_aot_dispatch_dynamic", "test_aot_dispatch_static")


def broken_traces(backward: Any) -> set[str]:
    op = differentiable(define(ONE, square), backward)
    told = opcheck(op, (values(2, 3).requires_grad_(),), raise_exception=False)
    return {name for name in TRACES if told[name] != "SUCCESS"}


def test_a_backward_that_looks_at_data_breaks_traces() -> None:
    """S205: the backward runs in the trace too; one that reads data cannot be traced."""

    def backward(ctx: Any, g: Tensor) -> Tensor:
        return of_array(g.numpy() * 2 * ctx.saved_tensors[0].numpy())

    assert broken_traces(doubled_slope) == set()
    assert broken_traces(backward) == set(TRACES)


def test_a_backward_that_changes_breaks_traces() -> None:
    """S205: what a backward reads elsewhere was fixed in the trace, and differs from the call."""
    calls: list[int] = []

    def backward(ctx: Any, g: Tensor) -> Tensor:
        calls.append(1)
        found: Tensor = g * (2 + len(calls)) * ctx.saved_tensors[0]
        return found

    assert broken_traces(backward) == set(TRACES)


# -- autocast -----------------------------------------------------------------------


def halved(kernel: Any, fake: Any = None) -> Any:
    op = define(ONE, kernel, fake)
    op.register_autocast("cpu", "float16")
    return judge(LAWS["test_autocast"], case_of(op, values(2, 3)))


def test_autocast_is_a_law() -> None:
    """S206: the law holds, does not apply without a dtype, and is broken by kernel or fake."""
    assert halved(square).kind == "holds"
    case = case_of(define(ONE, square), values(2))
    assert judge(LAWS["test_autocast"], case).kind == "does not apply"

    def single(x: Tensor) -> Tensor:
        return x.new_empty(x.shape, dtype=np.dtype("float32"))

    error = halved(square, single).error
    assert isinstance(error.__cause__, MetadataMismatchError) and "under autocast" in str(error)

    def refuses(x: Tensor) -> Tensor:
        if x.dtype == np.float16:
            raise TypeError("no half precision")
        return square(x)

    error = halved(refuses).error
    assert "no half precision" in str(error) and "test_laws.py" in error.source
