"""Operators made of partials, and the gradient as a decorator."""

from __future__ import annotations

import functools
import inspect
import pickle
from typing import Any

import pytest
from tests.dispatch.registry_state import refused

import polyop
from polyop import Tensor, custom_op
from polyop.errors import DuplicateRegistrationError, UsageTypeError
from polyop.library import register_autocast, register_autograd


def scaled(x: Tensor, n: int, more: int = 2) -> Tensor:
    """Multiply."""
    return x * n * more


OTHER = """
def f(x: Tensor, n: int, m: int = 1, more: int = 1) -> Tensor:
    return x * n
"""


def test_a_partial_is_of_its_functions_module() -> None:
    """S44: another module's partial does not replace an operator, with a warning or without."""
    scope: dict[str, Any] = {"__name__": "another_module", "Tensor": Tensor}
    exec(OTHER, scope)
    mine = custom_op("part::mine", functools.partial(scaled, n=3), mutates_args=())
    with refused(DuplicateRegistrationError, "part::mine", "replace=True"):
        custom_op("part::mine", functools.partial(scope["f"], n=9), mutates_args=())
    assert mine(polyop.ones(1)).tolist() == [6]


def test_an_operator_of_a_partial_looks_like_its_function() -> None:
    """S22, S45: name, text and module are the function's; what is bound is no argument."""
    op = custom_op("part::looks", functools.partial(scaled, n=3), mutates_args=())
    for _ in range(2):
        assert (op.__name__, op.__doc__, op.__module__) == ("scaled", "Multiply.", __name__)
        assert list(inspect.signature(op).parameters) == ["x", "more"]
        assert [a.name for a in op._schema.arguments] == ["x", "more"]
        assert op(polyop.ones(1)).tolist() == [6]
    assert pickle.loads(pickle.dumps(op))._opoverload is op._opoverload


def times(n: float) -> Any:
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * n

    return backward


def gradient(op: Any) -> list[float]:
    x = polyop.ones(2).requires_grad_()
    op(x).sum().backward()
    found: list[float] = x.grad.tolist()
    return found


def test_register_autograd_decorates() -> None:
    """S46: function and method give the function back, with `setup_context` too."""
    op = custom_op("part::grad", lambda x: x * 1, mutates_args=(), schema="(Tensor x) -> Tensor")
    three, four, five, six = map(times, (3, 4, 5, 6))
    assert op.register_autograd(three) is three and gradient(op) == [3, 3]
    setup = lambda ctx, inputs, output: None  # noqa: E731
    assert op.register_autograd(setup_context=setup)(four) is four and gradient(op) == [4, 4]
    assert register_autograd("part::grad", five) is five and gradient(op) == [5, 5]
    assert register_autograd(op, setup_context=setup)(six) is six and gradient(op) == [6, 6]
    assert op.register_autograd(None) is None
    assert not op(polyop.ones(2).requires_grad_()).requires_grad


@pytest.mark.parametrize("dtype", ["int32", None, bool, "complex64", int])
def test_autocast_needs_a_floating_dtype(dtype: Any) -> None:
    """S53: another one would change the values, or nothing would say which it is."""
    op = custom_op("part::cast", lambda x: x * 1, mutates_args=(), schema="(Tensor x) -> Tensor")
    with refused(UsageTypeError, "part::cast", "cast_inputs", "floating dtype"):
        register_autocast(op, "cpu", dtype)
    with refused(UsageTypeError, "part::cast", "floating dtype"):
        op.register_autocast("cpu", dtype)
    for known in ("float16", "bfloat16", "float8_e4m3fn", float):
        op.register_autocast("cpu", known)
