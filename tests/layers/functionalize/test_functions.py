"""`autograd.Function` under functionalization: its own gradient, its own jvp, its writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.layers.author_signatures import same

import polyop
from polyop import Tensor, autograd, func
from polyop.errors import AutogradError, MutationError

Fn = Callable[[Tensor], Tensor]


class Odd(autograd.Function):
    """A square whose derivative is said to be `100 x`: who takes forward's own is found out."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Square, by a write to what is made here."""
        y = polyop.zeros(1) + x
        return y.mul_(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the argument."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Give what is no derivative of a square."""
        return g * 100 * ctx.saved_tensors[0]


class OddForward(Odd):
    """The same, with the derivative `1000 x` in forward mode."""

    @staticmethod
    def jvp(ctx: Any, d: Tensor) -> Tensor:
        """Give what is no derivative of a square either."""
        return d * 1000 * ctx.saved_tensors[0]


class Reversed(autograd.Function):
    """Gives its argument, and turns the gradient round."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Give the argument."""
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Turn it round."""
        return -g


class ReversedView(Reversed):
    """The same, of a view."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Give a view."""
        return x[:]


class Tripled(autograd.Function):
    """Writes its argument; the gradient is said to be seven times as large."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Write."""
        return x.mul_(3)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Say so."""
        ctx.mark_dirty(inputs[0])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Give another factor than forward has."""
        return g * 7


PROGRAMS: dict[str, Fn] = {
    "own gradient": Odd.apply,
    "own jvp": OddForward.apply,
    "argument": Reversed.apply,
    "view": ReversedView.apply,
    "operator": lambda x: polyop.hop.custom_function_call(Odd, x),
    "cond": lambda x: polyop.cond(True, Odd.apply, lambda x: x * 1, (x,)),
    "scan": lambda x: polyop.scan(lambda c, a: (Odd.apply(c), a), x, polyop.ones(2, 1))[0],
    "closure": lambda x: polyop.func.vmap(lambda y: Odd.apply(x) * y)(polyop.ones(2)).sum(0),
}
TRANSFORMS: dict[str, Callable[[Fn, Tensor], Any]] = {
    "grad": lambda f, x: func.grad(lambda x: f(x).sum())(x),
    "vjp": lambda f, x: func.vjp(f, x)[1](x)[0],
    "jacrev": lambda f, x: func.jacrev(f)(x),
    "jvp": lambda f, x: func.jvp(f, (x,), (x,)),
    "linearize": lambda f, x: func.linearize(f, x)[1](x),
    "hessian": lambda f, x: func.hessian(lambda x: f(x).sum())(x),
    "vmap": lambda f, x: func.vmap(f)(polyop.stack([x, x + 1])),
    "vmap of grad": lambda f, x: func.vmap(func.grad(lambda x: f(x).sum()))(
        polyop.stack([x, x + 1])
    ),
    "backward": lambda f, x: backward(f, x),
}


def backward(f: Fn, x: Tensor) -> Any:
    """Give the gradient that `backward` leaves."""
    leaf = x.clone().requires_grad_()
    f(leaf).sum().backward()
    return leaf.grad


@pytest.mark.parametrize("remove", ["mutations", "mutations_and_views"])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_derivatives_are_the_authors(program: str, transform: str, remove: str) -> None:
    """S137, S168: functionalized, inside or outside, each derivative is that of the function."""
    f, apply, x = PROGRAMS[program], TRANSFORMS[transform], polyop.tensor([3.0])
    wanted = apply(f, x)
    same(apply(func.functionalize(f, remove=remove), x), wanted)
    if transform != "backward":
        same(func.functionalize(lambda x: apply(f, x), remove=remove)(x), wanted)


def test_what_a_function_makes_in_forward_keeps_its_history() -> None:
    """S137, S168: of an argument from outside too."""
    w = polyop.tensor([3.0], requires_grad=True)
    out = func.functionalize(lambda x: Odd.apply(w) * x)(polyop.ones(1))
    out.sum().backward()
    same(w.grad, polyop.tensor([300.0]))


def written_base(x: Tensor) -> Tensor:
    """Read a view of what is written."""
    y = x * 1
    view = y[:1]
    Tripled.apply(y)
    return view * y


def written_view(x: Tensor) -> Tensor:
    """Write a view of what is read."""
    y = x * 1
    Tripled.apply(y[:1])
    return y * y


@pytest.mark.parametrize("fn", [written_base, written_view])
def test_all_aliases_see_what_a_function_writes(fn: Fn) -> None:
    """S137, S168: y = 3 x with the slope 7 in the first place, for all who share it."""
    x = polyop.tensor([3.0, 5.0])
    aliased = func.functionalize(fn)
    wanted = {
        written_base: [[2 * 9.0 * 7, 0.0], [15.0 * 7, 9.0 * 7]],
        written_view: [[2 * 9.0 * 7, 0.0], [0.0, 10.0]],
    }
    same(func.jacrev(aliased)(x), polyop.tensor(wanted[fn]))


def test_writes_to_arguments_come_at_the_end() -> None:
    """S137, S168: a functionalized function writes its argument, and records it."""

    def of_leaf(x: Tensor) -> Tensor:
        y = x * 1
        out = func.functionalize(lambda y: Tripled.apply(y) * 2)(y)
        return (out * y).sum()

    x = polyop.tensor([2.0])
    same(func.grad(of_leaf)(x), polyop.tensor([4 * 6.0 * 7]))
    same(backward(of_leaf, x), polyop.tensor([4 * 6.0 * 7]))


def test_what_cannot_be_followed_is_refused() -> None:
    """S137, S168: no write is lost in silence."""

    class Unsaid(Tripled):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            x.mul_(3)
            return x * 1

    class Old(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

    def after_write(x: Tensor) -> Tensor:
        y = x * 1
        view = ReversedView.apply(y)
        y.mul_(2)
        return view

    x = polyop.tensor([3.0], requires_grad=True)
    for f, error, text in (
        (lambda x: Unsaid.apply(x * 1), MutationError, "does not return"),
        (after_write, MutationError, "after a write"),
        (lambda x: ReversedView.apply(x).mul_(2), MutationError, "is written"),
        (Old.apply, AutogradError, "takes ctx"),
    ):
        with pytest.raises(error, match=text):
            func.functionalize(f)(x)
    same(func.functionalize(Old.apply)(x.detach()), polyop.tensor([6.0]))
