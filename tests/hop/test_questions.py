"""What the function of a higher-order operator asks of tensors is answered as in a plain call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.layers.author_signatures import same

import polyop
from polyop import Tensor, autograd, func, hop
from polyop.errors import AutogradError, CaptureError, UsageError
from polyop.export import export
from polyop.graph import make_fx

Body = Callable[[Tensor, Tensor], Tensor]

ASKS: dict[str, Callable[[Tensor], bool]] = {
    "requires_grad": lambda t: t.requires_grad,
    "is_leaf": lambda t: t.is_leaf,
    "grad_fn": lambda t: t.grad_fn is None,
}
OF: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a result": lambda x, w: x * 2,
    "a constant result": lambda x, w: w * 2,
    "an operand": lambda x, w: x,
    "a constant operand": lambda x, w: w,
}


def unlike(x: Tensor, w: Tensor) -> Tensor:
    return x * 1


def mapped(b: Body, x: Tensor, w: Tensor) -> Tensor:
    return hop.map(b, x, w[0])  # type: ignore[no-any-return]


CALLS: dict[str, Callable[[Body], Body]] = {
    "checkpoint": lambda b: lambda x, w: hop.checkpoint(b, x, w),
    "cond": lambda b: lambda x, w: polyop.cond(x.sum() > 0, b, unlike, (x, w)),
    "map": lambda b: lambda x, w: mapped(b, x, w),
    "scan": lambda b: (
        lambda x, w: hop.scan(lambda c, x: (c + 1, b(x, w[0])), polyop.zeros(()), x)[1]
    ),
    "while_loop": lambda b: (
        lambda x, w: hop.while_loop(
            lambda i, x, w: i < 2, lambda i, x, w: (i + 1, b(x, w), w * 1), (x[0] * 0, x, w)
        )[1]
    ),
    "wrap": lambda b: lambda x, w: hop.wrap(b, x, w),
    "invoke_subgraph": lambda b: lambda x, w: hop.invoke_subgraph(b, "body", x, w),
    "nested": lambda b: (
        lambda x, w: polyop.cond(w.sum() > 0, lambda x, w: mapped(b, x * 1, w), unlike, (x, w))
    ),
}
CAPTURES: dict[str, Callable[..., Any]] = {
    "compile": lambda f, *args: polyop.compile(f)(*args),
    "compile of one graph": lambda f, *args: polyop.compile(f, fullgraph=True)(*args),
    "make_fx": lambda f, *args: make_fx(f, "fake")(*args)(*args),
    "make_fx real": lambda f, *args: make_fx(f)(*args)(*args),
    "make_fx symbolic": lambda f, *args: make_fx(f, "symbolic")(*args)(*args),
    "make_fx before dispatch": lambda f, *args: make_fx(f, "fake", pre_dispatch=True)(*args)(*args),
    "export": lambda f, *args: export(f, args).module()(*args),
}
GIVEN: dict[str, Callable[[], Tensor]] = {
    "plain": lambda: polyop.ones(3),
    "leaf": lambda: polyop.ones(3).requires_grad_(),
    "computed": lambda: polyop.ones(3).requires_grad_() * 1,
}
WITHIN: dict[str, Callable[[Body], Body]] = {
    "value": lambda f: f,
    "autograd": lambda f: lambda x, w: autograd.grad(f(x, w).sum(), x)[0],
    "func.grad": lambda f: lambda x, w: func.grad(lambda x: f(x, w).sum())(x),
    "vmap of grad": lambda f: (
        lambda x, w: func.vmap(func.grad(lambda x: f(x, w).sum()))(polyop.stack([x, x]))
    ),
}


def asking(name: str, of: str) -> Body:
    """Give a body that multiplies by one number or another."""
    return lambda x, w: x * w * (3 if ASKS[name](OF[of](x, w)) else 5)


def answered(f: Callable[..., Any], *args: Any) -> Any:
    """Give what a call gives, or that it is refused."""
    try:
        return f(*args).tolist()
    except (AutogradError, CaptureError, UsageError):
        return "refused"


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize("call", CALLS)
def test_a_capture_takes_the_branch_of_the_eager_call(call: str, name: str, of: str) -> None:
    """S179, S209, S211, S213: an answer in a traced body is the eager one, or refused by name."""
    f = CALLS[call](asking(name, of))
    for within in WITHIN.values():
        for make in GIVEN.values():
            args = make(), polyop.ones(3)
            eager = answered(within(f), *args)
            for capture in CAPTURES.values():
                assert answered(capture, within(f), *args) in (eager, "refused")


@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize("call", CALLS)
def test_without_gradients_all_is_answered(call: str, name: str) -> None:
    """S179: where no operand requires grad, no question about results is refused."""
    f = CALLS[call](asking(name, "a result"))
    args = polyop.ones(3), polyop.ones(3)
    for capture in CAPTURES.values():
        same(capture(f, *args), f(*args))


def test_compile_runs_such_a_function_eagerly() -> None:
    """S211, S212: its gradient is the eager one too; one graph is refused with a way out."""
    f = CALLS["map"](asking("requires_grad", "a result"))
    x, w = polyop.ones(3).requires_grad_(), polyop.ones(3)
    polyop.compile(f)(x, w).sum().backward()
    assert x.grad.tolist() == [3.0] * 3
    with pytest.raises(CaptureError, match="the function of map reads .requires_grad") as caught:
        polyop.compile(f, fullgraph=True)(x, w)
    assert "outside of the function" in str(caught.value)


TRANSFORMS: dict[str, Callable[[Body], Body]] = {
    "grad": lambda f: lambda x, w: func.grad(lambda x: f(x, w).sum())(x),
    "hessian": lambda f: lambda x, w: func.hessian(lambda x: (f(x, w) ** 2).sum())(x),
    "backward": lambda f: (
        lambda x, w: autograd.grad(f(leaf := x.clone().requires_grad_(), w).sum(), leaf)[0]
    ),
}


@pytest.mark.parametrize("of", ["a constant result", "a constant operand"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_checkpoint_differentiates_the_branch_that_it_ran(name: str, of: str) -> None:
    """S179: an operand that requires no grad requires none in backward either."""
    body = asking("requires_grad", of)
    args = polyop.ones(3), polyop.ones(3)
    same(TRANSFORMS[name](CALLS["checkpoint"](body))(*args), TRANSFORMS[name](body)(*args))


@pytest.mark.parametrize("name", [name for name in CALLS if name not in {"map", "scan", "nested"}])
def test_grad_mode_that_is_turned_on_inside(name: str) -> None:
    """S140, S179: a gradient that a plain call has is not lost in a trace without grad mode."""

    def body(x: Tensor, w: Tensor) -> Tensor:
        with polyop.enable_grad():
            return x * x

    def f(x: Tensor) -> Tensor:
        with polyop.no_grad():
            y = CALLS[name](body)(x, polyop.ones(3))
        return (y * 1).sum()

    x = polyop.tensor([1.0, 2.0, 3.0])
    assert func.grad(f)(x).sum().item() > 0
    with pytest.raises(CaptureError, match="turns grad mode on"):
        make_fx(func.grad(f), "fake")(x)
    with pytest.raises(CaptureError, match="turns grad mode on"):
        polyop.compile(f, fullgraph=True)(x.clone().requires_grad_())
