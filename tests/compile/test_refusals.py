"""What cannot be captured is refused by line and reason, before anything is done (SPEC S212)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.compile.test_wrappers import Couple

import polyop
from polyop import Tensor, autograd, errors
from polyop.dispatch.namespaces import ops
from polyop.extend import DispatchKey, HigherOrderOperator

DONE: list[str] = []
OWN = polyop.ones(3)
TABLE = {3: 2.0}


def ranged(x: Tensor) -> Any:
    n = x[x > 0].shape[0]
    return [x * i for i in range(n)]


def repeated(x: Tensor) -> Any:
    return x * len([0] * x[x > 0].shape[0])


def looked_up(x: Tensor) -> Any:
    return x * TABLE[x[x > 0].shape[0]]


def lifted(x: Tensor) -> Any:
    return polyop.cond(x.sum() > 0, lambda y: OWN.mul_(1) * y, lambda y: y * 1, (x,))


def written(x: Tensor) -> Any:
    return polyop.cond(x.sum() > 0, lambda y: y.add_(1) * 2, lambda y: y * 1, (x,))


def alias(x: Tensor) -> Any:
    return polyop.cond(x.sum() > 0, lambda y: y, lambda y: y * 1, (x,))


def structures(x: Tensor) -> Any:
    return polyop.cond(x.sum() > 0, lambda y: (y * 1,), lambda y: y * 1, (x,))


def acting(f: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Give a function that writes its input, and more, before it calls another."""

    def fn(x: Tensor) -> Any:
        x.add_(1)
        DONE.append("a call")
        return f(x)

    return fn


def refused(fn: Any, x: Tensor, kind: type[errors.PolyopError]) -> errors.PolyopError:
    """Give the error of `fullgraph=True`, which has done nothing."""
    DONE.clear()
    before = x.tolist()
    with pytest.raises(kind) as caught:
        polyop.compile(fn, fullgraph=True)(x)
    assert (x.tolist(), DONE) == (before, [])
    return caught.value


def is_in(error: errors.PolyopError, fn: Any, line: int) -> bool:
    """Tell whether an error names a line of a function, by its number there."""
    return error.source == f"{__file__}:{fn.__code__.co_firstlineno + line}"


@pytest.mark.parametrize(("fn", "line"), [(ranged, 2), (repeated, 1), (looked_up, 1)])
def test_python_that_needs_a_plain_size(fn: Any, line: int) -> None:
    """S1, S212: a size that depends on data is refused where Python needs a number."""
    error = refused(acting(fn), polyop.ones(3), errors.CaptureError)
    assert "a size that is known only at run time" in str(error)
    assert is_in(error, fn, line)
    assert error.fix
    x, y = polyop.ones(3), polyop.ones(3)
    assert str(polyop.compile(acting(fn))(x)) == str(acting(fn)(y))
    assert x.tolist() == y.tolist()


def test_an_operator_without_a_rule() -> None:
    """S119, S212: the refusal says itself which operator lacks what, where, and what to do."""

    class Thrice(HigherOrderOperator):
        def __call__(self, *args: Any) -> Any:
            return super().__call__(*args)

    made = Thrice("refusals_thrice")
    made.py_impl(DispatchKey.CompositeExplicitAutograd)(lambda x: x * 3)
    made.fallthrough(DispatchKey.AutogradCPU)

    try:
        error = refused(acting(made), polyop.ones(3), errors.CaptureError)
        assert "refusals_thrice" in error.op
        assert "register_higher_order" in error.fix
        assert is_in(error, Thrice.__call__, 1)
        assert polyop.compile(acting(made))(polyop.ones(3)).tolist() == [6.0] * 3
    finally:
        del ops.higher_order.table["refusals_thrice"]


def test_a_gradient_that_raises() -> None:
    """S211, S212: an eager call takes no gradient, so it cannot raise what that does."""

    class Bad(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            raise KeyError("mine")

    fn = lambda x: (DONE.append("a call"), Bad.apply(x))[1]  # noqa: E731
    x = polyop.ones(3, requires_grad=True)
    error = refused(fn, x, errors.CaptureError)
    assert "its gradient cannot be captured: KeyError" in str(error)
    assert polyop.compile(fn)(x).tolist() == [2.0] * 3


@pytest.mark.parametrize("fn", [lifted, written, alias, structures])
def test_what_no_subgraph_may_do(fn: Any) -> None:
    """S181, S211, S212: in one graph it is refused; else the call is the eager one."""
    refused(acting(fn), polyop.ones(3), errors.SubgraphError)
    x, y = polyop.ones(3), polyop.ones(3)
    assert str(polyop.compile(acting(fn))(x)) == str(acting(fn)(y))
    assert x.tolist() == y.tolist()


def test_an_exception_about_the_stand_ins() -> None:
    """S212: whose code looks at payloads is told that the exception is about those."""

    def fn(x: Tensor) -> Tensor:
        assert x.payload.nbytes == 12
        return x * 2

    with pytest.raises(errors.CaptureError, match=r"raises \w+.*not in an eager call") as caught:
        polyop.compile(fn, fullgraph=True)(polyop.ones(3))
    assert is_in(caught.value, fn, 1)


@pytest.mark.parametrize("graded", [False, True])
def test_wrappers_in_a_subgraph(graded: bool) -> None:
    """S165, S181, S212: a branch takes no wrapper in one graph; else the call is the eager one."""

    def fn(x: Any) -> Any:
        DONE.append("a call")
        return polyop.cond(x.a.sum() > 0, lambda y: y * 3, lambda y: y * 1, (x,))

    def couple() -> Any:
        made = Couple(polyop.ones(3), polyop.zeros(3))
        return made.requires_grad_() if graded else made

    DONE.clear()
    with pytest.raises(errors.SubgraphError, match="a Couple"):
        polyop.compile(fn, fullgraph=True)(couple())
    assert not DONE
    assert polyop.compile(fn)(couple()).a.tolist() == [3.0] * 3
