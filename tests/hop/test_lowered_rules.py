"""Rules for transforms that take theirs off and call their operator again, on its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop import Tensor, func
from polyop.extend import DispatchKey, HigherOrderOperator, TransformType
from polyop.hop.rules import Interpreter

Fn = Callable[..., Any]


class Apply(HigherOrderOperator):
    """Calls a function."""

    def __call__(self, fn: Fn, x: Tensor) -> Any:
        return super().__call__(fn, x)


def composite(hop: Apply) -> None:
    """Give it one kernel, through which gradients flow."""
    hop.py_impl(DispatchKey.CompositeImplicitAutograd)(lambda fn, x: fn(x))


def with_gradient(hop: Apply) -> None:
    """Give it a kernel below autograd, and what autograd does."""
    hop.py_impl(DispatchKey.CompositeExplicitAutograd)(lambda fn, x: fn(x))
    hop.py_autograd_impl(lambda fn, x: fn(x))


made: list[Apply] = []


@pytest.fixture(params=[composite, with_gradient])
def ran(request: Any) -> Iterator[tuple[Apply, list[Any]]]:
    """An operator whose rules go on without their transform, and a list of the rules that ran."""
    hop, seen = Apply(f"lowered_{len(made)}"), []
    made.append(hop)
    request.param(hop)

    def rule(interpreter: Interpreter, fn: Fn, x: Tensor) -> Any:
        seen.append(interpreter.key())
        with interpreter.lower():
            return hop(fn, x)

    for kind in TransformType:
        hop.py_impl(kind)(rule)
    yield hop, seen


ONES = polyop.ones(3, 2)
CALLS: dict[str, Fn] = {
    "Vmap": lambda f: polyop.vmap(f)(ONES),
    "Grad": lambda f: func.grad(lambda x: f(x).sum())(ONES),
    "Jvp": lambda f: func.jvp(f, (ONES,), (ONES,))[1],
    "Jvp under no_grad": lambda f: polyop.no_grad()(func.jvp)(f, (ONES,), (ONES,))[1],
    "Functionalize": lambda f: func.functionalize(f)(ONES),
    "Grad in Vmap": lambda f: polyop.vmap(func.grad(lambda x: f(x).sum()))(ONES),
    "Vmap in Grad": lambda f: func.grad(lambda x: polyop.vmap(f)(x).sum())(ONES),
    "Grad in Jvp": lambda f: func.jvp(func.grad(lambda x: f(x).sum()), (ONES,), (ONES,))[1],
}


@pytest.mark.parametrize("call", CALLS)
def test_the_rule_runs_once_and_the_call_goes_on(ran: Any, call: str) -> None:
    """S109: values and derivatives are those of the function itself."""
    hop, seen = ran
    cubed = lambda x: x * x * x  # noqa: E731
    found = CALLS[call](lambda x: hop(cubed, x))
    assert found.tolist() == CALLS[call](cubed).tolist()
    assert seen == [TransformType[call.split()[0]]]


def test_gradients_of_what_is_inside_are_kept(ran: Any) -> None:
    """S109, S134: a batched tensor may hold one that requires grad."""
    hop, _ = ran
    x = polyop.ones(3, 2, requires_grad=True)
    polyop.vmap(lambda x: hop(lambda y: y * y, x))(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[2.0, 2.0]] * 3
