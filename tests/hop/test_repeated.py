"""Gradients that run a function again, and functions that draw or act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import Tensor, func, hop
from polyop.errors import AutogradError
from polyop.export import export
from polyop.extend import DispatchMode, SubgraphOperator
from polyop.graph import make_fx
from polyop.library import EffectType, custom_op

X = polyop.tensor([0.3, 0.4], dtype="float64")
TOLD: list[int] = []


@custom_op("t_repeated::tell", mutates_args=())
def tell(x: Tensor) -> Tensor:
    """Act."""
    TOLD.append(1)
    return x.clone()


tell.register_fake(polyop.empty_like)
tell.register_autograd(lambda ctx, g: g)
tell.register_vmap(lambda info, in_dims, x: (tell(x), in_dims[0]))
tell.register_effect(EffectType.ORDERED)


def noise(v: Tensor) -> Tensor:
    """Draw factors of a linear function."""
    return v * polyop.rand(2, dtype="float64")


def spoken(v: Tensor) -> Tensor:
    """Act on the way."""
    return tell(v) * 2.0


Body = Callable[[Tensor], Tensor]
#: By operator: a linear function of a vector that gives a number, from one that gives a vector.
CALLS: dict[str, Callable[[Body], Body]] = {
    "checkpoint": lambda b: lambda x: hop.checkpoint(lambda v: b(v).sum(), x),
    "wrap": lambda b: lambda x: hop.wrap(lambda v: b(v).sum(), x),
    "invoke_subgraph": lambda b: lambda x: hop.invoke_subgraph(lambda v: b(v).sum(), "", x),
    "foreach_map": lambda b: lambda x: hop.foreach_map(lambda v: b(v).sum(), [x, x])[0],
    "grad mode": lambda b: lambda x: hop.wrap_with_set_grad_enabled(True, lambda v: b(v).sum(), x),
    "map": lambda b: lambda x: polyop.map(b, polyop.stack([x, x])).sum(),
    "cond": lambda b: (
        lambda x: polyop.cond(
            polyop.asarray(True), lambda v: b(v).sum(), lambda v: v.sum() * 2, (x,)
        )
    ),
    "scan": lambda b: (
        lambda x: polyop.scan(lambda c, z: (c + b(z), z * 1), x, polyop.stack([x, x]))[0].sum()
    ),
    "while_loop": lambda b: (
        lambda x: polyop.while_loop(
            lambda i, v: i < 2, lambda i, v: (i + 1, b(v)), (polyop.asarray(0), x)
        )[1].sum()
    ),
}


def slope(f: Body) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Give a linear function and, from its gradient, its value once more."""

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        out, pull = func.vjp(f, x)
        return out, (pull(polyop.ones_like(out))[0] * x).sum()

    return both


def of_two(f: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Call a function for two samples."""
    return lambda x: polyop.vmap(f, randomness="same")(polyop.stack([x, x + 1]))


#: By name, how a program is made of a function.
CAPTURES: dict[str, Callable[[Any], Any]] = {
    "export": lambda f: export(f, (X,)).module(),
    "make_fx": lambda f: make_fx(f, "fake")(X),
    "before dispatch": lambda f: make_fx(f, "fake", pre_dispatch=True)(X),
    "functionalize": lambda f: make_fx(func.functionalize(f), "fake")(X),
    "vmap": lambda f: make_fx(of_two(f), "fake")(X),
    "jvp": lambda f: make_fx(lambda x: func.jvp(f, (x,), (x,)), "fake")(X),
}


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("body", [noise, spoken])
@pytest.mark.parametrize("name", CALLS)
def test_no_program_draws_or_acts_again_for_a_gradient(name: str, body: Body, capture: str) -> None:
    """S179: a gradient in a program that would run a drawing or acting function again → error."""
    f = slope(CALLS[name](body))
    out, again = f(X)
    assert polyop.allclose(out, again)
    TOLD.clear()
    with pytest.raises(AutogradError, match="repeat an effect or draw other random numbers"):
        CAPTURES[capture](f)
    assert not TOLD


@pytest.mark.parametrize("name", CALLS)
def test_a_compiled_gradient_is_of_the_numbers_that_were_drawn(name: str) -> None:
    """S179: what no program can hold runs as Python does."""
    f = of_two(slope(CALLS[name](noise)))
    out, again = polyop.compile(f)(X)
    assert polyop.allclose(out, again)


@pytest.mark.parametrize("name", CALLS)
def test_what_a_function_writes_of_its_own_is_no_effect(name: str) -> None:
    """S179: a function that writes what it made has its gradient in a program."""
    f = CALLS[name](lambda v: (v * 3).add_(v))
    expected = func.grad(f)(X)
    for capture in ("export", "make_fx", "functionalize"):
        assert polyop.allclose(CAPTURES[capture](func.grad(f))(X), expected)


def test_a_write_in_a_function_of_a_function_is_no_effect() -> None:
    """S178: an operator around one whose function writes what it made is differentiated too."""

    def step(c: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        kept = c.clone()
        kept.mul_(c)
        return c + kept, z * kept

    def f(x: Tensor) -> Tensor:
        inner = lambda a: polyop.scan(step, a, polyop.stack([a, a]))[1].sum()  # noqa: E731
        return hop.wrap(inner, x)

    for derivative in (func.grad(f), func.hessian(f)):
        assert polyop.allclose(make_fx(derivative, "fake")(X)(X), derivative(X))


# -- operators whose calls are more than calls of their functions -------------


class Twice(SubgraphOperator):
    """Calls its function on its own result."""

    def eager(self, subgraph: Any, /, *operands: Any, **options: Any) -> Any:
        """Call it, and again."""
        return subgraph(subgraph(*operands)) * options.get("scale", 1)


Twice("t_repeated_twice")


def fourth(x: Tensor) -> Tensor:
    """Square twice."""
    return polyop.ops.higher_order.t_repeated_twice(lambda q: q * q, x, scale=3)


def sums_of_sums(x: Tensor) -> Tensor:
    """Sum up twice."""
    return polyop.ops.higher_order.t_repeated_twice(lambda q: q.cumsum(0), x)


ROWS = polyop.stack([X, X + 1, X + 2])
DERIVED: dict[str, tuple[Callable[[Tensor], Any], Callable[[Tensor], Any]]] = {
    "grad": (func.grad(lambda x: fourth(x).sum()), lambda x: 12 * x**3),
    "hessian": (
        func.hessian(lambda x: fourth(x).sum()),
        lambda x: polyop.eye(2, dtype="float64") * 36 * x**2,
    ),
    "jvp": (lambda x: func.jvp(fourth, (x,), (x,))[1], lambda x: 12 * x**4),
    "vmap": (
        lambda x: polyop.vmap(sums_of_sums, in_dims=1)(ROWS * x),
        lambda x: (ROWS * x).cumsum(0).cumsum(0).T,
    ),
    "vmap of grad": (
        lambda x: polyop.vmap(func.grad(lambda v: fourth(v).sum()))(ROWS * x),
        lambda x: 12 * (ROWS * x) ** 3,
    ),
}


@pytest.mark.parametrize("name", DERIVED)
@pytest.mark.parametrize("capture", ["export", "make_fx", "functionalize"])
def test_a_rule_is_of_the_whole_call(name: str, capture: str) -> None:
    """S178: the rules of an operator with an `eager` of its own are those of what it does."""
    f, wanted = DERIVED[name]
    assert polyop.allclose(f(X), wanted(X))
    assert polyop.allclose(CAPTURES[capture](f)(X + 0.5), wanted(X + 0.5))


# -- without a trace ----------------------------------------------------------


class Passing(DispatchMode):
    """Takes calls whole, and passes them on."""

    supports_higher_order_operators = True

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CALLS)
def test_a_mode_that_gets_calls_whole_draws_no_other_numbers(name: str) -> None:
    """S119, S179: where a gradient would draw again, with a mode too → error."""
    f = slope(CALLS[name](noise))
    with Passing():
        if name != "checkpoint":
            with pytest.raises(AutogradError, match="draw other random numbers"):
                f(X)
        else:  # which draws the same
            out, again = f(X)
            assert polyop.allclose(out, again)
        expected = func.grad(CALLS[name](lambda v: v * v))(X)
    assert polyop.allclose(expected, func.grad(CALLS[name](lambda v: v * v))(X))
