"""Gradients of exported programs whose operators call functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import Tensor, func, hop
from polyop.errors import AutogradError, CaptureError
from polyop.export import export
from polyop.extend import DispatchMode, SubgraphOperator

Body = Callable[[Tensor], Tensor]


def x() -> Tensor:
    """Give an input."""
    return polyop.tensor([0.3, 0.4], dtype="float64")


class Hundred(polyop.autograd.Function):
    """Has a backward of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(v: Tensor) -> Tensor:
        return v * v

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * 100


def partly(v: Tensor) -> Tensor:
    """Compute a factor without gradients."""
    with polyop.no_grad():
        factor = v * v
    return factor * v


def aside(v: Tensor) -> Tensor:
    """Do the same in a way that a program has."""
    return hop.wrap_with_set_grad_enabled(False, lambda u: u * u, v) * v


def written(v: Tensor) -> Tensor:
    """Write what it made."""
    return (v * v).mul_(v)


class Twice(SubgraphOperator):
    """Calls its function on its own result."""

    def eager(self, subgraph: Any, /, *operands: Any, **options: Any) -> Any:
        """Call it, and again."""
        return subgraph(subgraph(*operands))


Twice("t_gradients_twice")


def both(v: Tensor) -> Tensor:
    """Stack it on itself."""
    return polyop.stack([v, v])


CALLS: dict[str, Callable[[Body], Body]] = {
    "map": lambda b: lambda v: polyop.map(b, both(v)).sum(),
    "results of scan": lambda b: (
        lambda v: polyop.scan(lambda c, z: (c + z, b(z)), v, both(v))[1].sum()
    ),
    "carry of scan": lambda b: (
        lambda v: polyop.scan(lambda c, z: (b(c) * z, z * 1), v, both(v))[0].sum()
    ),
    "carry without grad": lambda b: (
        lambda v: polyop.scan(lambda c, z: (b(c) * z, z * 1), polyop.ones_like(v), both(v))[0].sum()
    ),
    "the other branch": lambda b: (
        lambda v: polyop.cond(v.sum() > 100, lambda u: b(u) * 2, lambda u: u * 3, (v,)).sum()
    ),
    "while_loop": lambda b: (
        lambda v: polyop.while_loop(
            lambda i, u: i < 2, lambda i, u: (i + 1, b(u) * 2), (polyop.asarray(0), v)
        )[1].sum()
    ),
    "associative_scan": lambda b: (
        lambda v: polyop.associative_scan(lambda p, q: p + b(q), both(v)).sum()
    ),
    "checkpoint": lambda b: lambda v: hop.checkpoint(lambda u: b(u).sum(), v),
    "invoke_subgraph": lambda b: lambda v: hop.invoke_subgraph(lambda u: b(u).sum(), "", v),
    "grad mode": lambda b: lambda v: hop.wrap_with_set_grad_enabled(True, b, v).sum(),
    "wrap": lambda b: lambda v: hop.wrap(b, v).sum(),
    "twice": lambda b: lambda v: polyop.ops.higher_order.t_gradients_twice(b, v).sum(),
    "foreach_map": lambda b: lambda v: hop.foreach_map(b, [v, v * 2])[1].sum(),
    "nested": lambda b: lambda v: hop.wrap(lambda u: polyop.map(b, both(u)).sum(), v),
    "nested deeper": lambda b: (
        lambda v: polyop.map(
            lambda u: polyop.cond(u.sum() > 0, b, lambda w: w * 1, (u,)), both(v)
        ).sum()
    ),
    "of its surroundings": lambda b: (
        lambda v: (lambda w: polyop.map(lambda z: b(z) * w * v, both(v)).sum())(v * 2)
    ),
    "two results": lambda b: (
        lambda v: (lambda a, c: a.sum() + c.sum())(*hop.checkpoint(lambda u: (u * 2, b(u)), v))
    ),
}


def slope(f: Callable[[Tensor], Tensor]) -> Tensor:
    """Give the gradient by autograd."""
    v = x().requires_grad_()
    (found,) = polyop.autograd.grad([f(v)], [v])
    return found


@pytest.mark.parametrize("body", [partly, Hundred.apply], ids=["no_grad", "Function"])
@pytest.mark.parametrize("name", CALLS)
def test_a_gradient_that_the_graph_of_a_function_does_not_have_is_refused(
    name: str, body: Body
) -> None:
    """S213, S179: no program gives another gradient than its function, through an operator."""
    f = CALLS[name](body)
    with pytest.raises(CaptureError, match="gradient of result 0"):
        export(f, (x().requires_grad_(),))
    module = export(f, (x(),)).module()
    assert polyop.allclose(module(x()), f(x()))
    with pytest.raises(CaptureError, match="made without gradients"):
        slope(module)


@pytest.mark.parametrize("body", [aside, written], ids=["aside", "written"])
@pytest.mark.parametrize("name", CALLS)
def test_a_program_has_the_gradient_of_its_function(name: str, body: Body) -> None:
    """S213, S179: through any operator, whether it was exported with gradients or without."""
    f = CALLS[name](body)
    for v in (x(), x().requires_grad_()):
        assert polyop.allclose(slope(export(f, (v,)).module()), slope(f))


def test_the_gradient_of_a_gradient_that_the_graph_does_not_have() -> None:
    """S213: a gradient that the function computes itself is compared too."""
    f = func.grad(lambda v: polyop.map(partly, both(v)).sum())
    with pytest.raises(AutogradError):
        slope(lambda v: f(v).sum())
    with pytest.raises(CaptureError, match="gradient of result 0"):
        export(lambda v: f(v).sum(), (x().requires_grad_(),))


def test_a_written_input_that_gets_a_history_is_no_reason_to_refuse() -> None:
    """S213: the graph and the function are compared on the same inputs, as they were given."""

    def f(v: Tensor, out: Tensor) -> Tensor:
        out.add_(v * 2)
        return (out + v).sum()

    module = export(f, (x().requires_grad_(), x())).module()
    assert polyop.allclose(slope(lambda v: module(v, x())), slope(lambda v: f(v, x())))


@pytest.mark.parametrize("call", [hop.wrap, polyop.map], ids=["wrap", "map"])
def test_gradients_of_what_a_function_closes_over(call: Any) -> None:
    """S178, S213: a trace makes operands of it, and the program has their gradients."""
    weight = (x() + 1).requires_grad_()

    def f(v: Tensor) -> Tensor:
        inner = v * 2
        return call(lambda u: u * inner.sum() * weight.sum(), v).sum()

    for v in (x(), x().requires_grad_()):
        found = slope(export(f, (v,)).module())
        assert polyop.allclose(found, slope(lambda u: u.sum() * (u * 2).sum() * weight.sum()))


class Passing(DispatchMode):
    """Takes calls whole, and passes them on."""

    supports_higher_order_operators = True

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return op(*args, **(kwargs or {}))


def test_calls_that_a_mode_takes_whole_are_compared_too() -> None:
    """S119, S213: functions of calls that are one step for a mode are looked into."""
    scale = x()
    with Passing():
        module = export(lambda v: hop.wrap(lambda u, s: u * s, v, scale).sum(), (x(),)).module()
        with pytest.raises(CaptureError, match="gradient of result 0"):
            export(lambda v: hop.wrap(partly, v).sum(), (x().requires_grad_(),))
    assert polyop.allclose(slope(module), scale)


AROUND: dict[str, Callable[[Body, Tensor], Tensor]] = {
    "jvp": lambda f, v: func.jvp(f, (v,), (polyop.ones_like(v),))[1],
    "primal": lambda f, v: func.jvp(f, (v,), (polyop.ones_like(v),))[0],
    "vmap": lambda f, v: polyop.vmap(f)(v),
    "functionalize": lambda f, v: func.functionalize(f)(v),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("f", [partly, Hundred.apply], ids=["no_grad", "Function"])
def test_a_program_without_gradients_refuses_them_inside_other_transforms(
    f: Body, around: Callable[[Body, Tensor], Tensor]
) -> None:
    """S213: the gradient would go through what the function left out, whoever wraps its input."""
    module = export(f, (polyop.tensor(2.0, dtype="float64"),)).module()
    values = polyop.tensor([2.0, 3.0], dtype="float64")
    if around is not AROUND["vmap"]:
        values = values[0]
    with pytest.raises(CaptureError, match=r"requires grad, .*without gradients|has a tangent"):
        func.grad(lambda v: around(module, v).sum())(values)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_program_does_not_know_the_tangents_of_a_function_in_a_body(call: Any) -> None:
    """S137, S180, S213: where an operator calls the function, that is the same."""
    program = export(call(Hundred.apply), (x(),)).module()
    with pytest.raises(CaptureError, match=r"tangent.*autograd\.Function"):
        func.jvp(program, (x(),), (polyop.ones_like(x()),))


def test_a_program_does_not_know_the_tangents_of_a_function() -> None:
    """S137, S213: a `Function` has its own derivative, a `no_grad` block that of an eager call."""
    ones = polyop.ones_like(x())
    with pytest.raises(CaptureError, match=r"tangent.*autograd\.Function") as error:
        func.jvp(export(Hundred.apply, (x(),)).module(), (x(),), (ones,))
    assert (error.value.argument, error.value.seen) == ("arg0", "one of func.jvp")
    program = export(partly, (x(),)).module()
    found = func.jvp(program, (x(),), (ones,))[1]
    assert polyop.allclose(found, func.jvp(partly, (x(),), (ones,))[1])
