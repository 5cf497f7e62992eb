"""What a `Function` marks dirty: its base, and all views of it, get the history of the write."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.layers.author_signatures import same
from torch.autograd import forward_ad

import polyop
from polyop import Tensor, autograd, func
from polyop.errors import MutationError

Fn = Callable[[Any], Any]
START = [1.0, 2.0, 3.0]


def tripled(of: Any) -> Any:
    """Make a `Function` that writes three times its argument to it, of polyop or PyTorch."""

    class Tripled(of.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(x: Any) -> Any:
            return x.mul_(3)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.mark_dirty(inputs[0])

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 3

        @staticmethod
        def jvp(ctx: Any, d: Any) -> Any:
            return d.mul_(3)

    return Tripled


def squared(of: Any) -> Any:
    """Make one that saves its result, and has no `jvp`."""

    class Squared(of.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(x: Any) -> Any:
            return x.mul_(x)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.mark_dirty(inputs[0])
            ctx.save_for_backward(output)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2 * ctx.saved_tensors[0] ** 0.5

    return Squared


def programs(of: Any) -> dict[str, Fn]:
    """Give programs that write what others share, of polyop or PyTorch."""
    three, two = tripled(of).apply, squared(of).apply

    def base(x: Any) -> Any:
        y = x * 1
        three(y[:1])
        return (y * y).sum()

    def older_view(x: Any) -> Any:
        y = x * 1
        view = y[:1]
        three(y)
        return (view * view * y).sum()

    def itself(x: Any) -> Any:
        y = x * 1
        return (three(y) * y).sum()

    def views_of_views(x: Any) -> Any:
        y = x * 1
        view = y[:2]
        inner = view[1:]
        three(inner)
        three(view)
        return (y * y).sum() * inner.sum() + (view * y[1:]).sum()

    def then_an_operator(x: Any) -> Any:
        y = x * 1
        view = three(y[:2])
        view.mul_(x[:2])
        return (y * y).sum() + (view * view).sum()

    def saved_result(x: Any) -> Any:
        y = x * x
        two(y)
        return (y * y).sum()

    def saved_result_of_a_view(x: Any) -> Any:
        y = x * x
        two(y[1:])
        return (y * y).sum()

    return {fn.__name__: fn for fn in (
        base, older_view, itself, views_of_views, then_an_operator, saved_result,
        saved_result_of_a_view,
    )}  # fmt: skip


OURS, THEIRS = programs(polyop), programs(torch)


def gradients(of: Any, f: Fn) -> tuple[Any, Any]:
    """Give first and second gradients by plain autograd."""
    x = of.tensor(START, requires_grad=True)
    (first,) = of.autograd.grad(f(x), x, create_graph=True)
    (second,) = of.autograd.grad(first.sum(), x)
    return np.asarray(first.tolist()), np.asarray(second.tolist())


@pytest.mark.parametrize("name", OURS)
def test_aliases_follow_as_in_pytorch(name: str) -> None:
    """S137: gradients of all who share the memory are PyTorch's, of every order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = gradients(torch, THEIRS[name])
    for ours, theirs in zip(gradients(polyop, OURS[name]), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_aliases_follow_at_every_level(name: str) -> None:
    """S134, S137: each transform gives what plain autograd gives."""
    f, x = OURS[name], polyop.tensor(START)
    first, second = (polyop.tensor(g.tolist()) for g in gradients(polyop, f))
    total = lambda x: func.grad(f)(x).sum()  # noqa: E731
    rows = polyop.eye(3)
    near = lambda a, b: np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)  # noqa: E731
    near(func.grad(f)(x), first)
    near(func.grad(total)(x), second)
    near(polyop.stack([func.jvp(f, (x,), (v,))[1] for v in rows]), first)
    near(polyop.stack([func.jvp(total, (x,), (v,))[1] for v in rows]), second)
    near(polyop.stack([func.linearize(f, x)[1](v) for v in rows]), first)
    near(func.functionalize(f)(x), f(x))
    near(func.grad(func.functionalize(f))(x), first)
    assert x.tolist() == START


def test_a_written_argument_is_the_result() -> None:
    """S137: what comes back is the argument, with levels and without."""
    apply = tripled(polyop).apply
    found = []

    def f(x: Tensor) -> Tensor:
        y = x * 1
        found.append(apply(y) is y)
        return y.sum()

    x = polyop.tensor(START)
    f(x.clone().requires_grad_())
    func.grad(f)(x)
    func.jvp(f, (x,), (x,))
    assert found == [True, True, True]


def sharing(of: Any) -> dict[str, Fn]:
    """Give programs in which others have the tangent of what is written, of polyop or PyTorch."""
    three = tripled(of).apply

    def view(x: Any) -> Any:
        y = x.clone()
        three(y[1:])
        return y + x

    def older_view(x: Any) -> Any:
        y = x.clone()
        part = y[:1]
        three(y)
        return part + x[:1]

    return {
        "copy": lambda x: three(x.clone()) + x,
        "sum": lambda x: three(x + 1) + x,
        "twice": lambda x: three(three(x.clone())) + x,
        "view": view,
        "older view": older_view,
    }


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", sharing(polyop))
def test_a_jvp_writes_no_tangent_but_its_own(name: str) -> None:
    """S137: it changes the tangent in place, as PyTorch asks, and nobody else's with it."""
    f, x, d = sharing(polyop)[name], polyop.tensor(START), polyop.ones(3)
    with forward_ad.dual_level():
        theirs = forward_ad.make_dual(torch.tensor(START), torch.ones(3))
        wanted = forward_ad.unpack_dual(sharing(torch)[name](theirs)).tangent
    assert func.jvp(f, (x,), (d,))[1].tolist() == wanted.tolist()
    assert func.linearize(f, x)[1](d).tolist() == wanted.tolist()
    assert func.jacfwd(f)(x).sum(1).tolist() == wanted.tolist()
    assert d.tolist() == [1, 1, 1]


class Scaled(autograd.Function):
    """Writes a product to its first argument, and gives two results."""

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Any:
        """Write."""
        x.mul_(w)
        return x, x + 1

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Say so."""
        ctx.mark_dirty(inputs[0])

    @staticmethod
    def backward(ctx: Any, g: Tensor, h: Tensor) -> Any:
        """Give what tells the arguments apart."""
        return (g + h) * 10, (g + h) * 100


def test_one_of_several_results() -> None:
    """S137: a part of a base is written, with a second result beside it."""

    def f(x: Tensor) -> Tensor:
        y = x * 1
        part, more = Scaled.apply(y[:1], x[1:2])
        return (y + part + more).sum()

    x = polyop.tensor(START)
    wanted = polyop.tensor([10.0 * (4 + 3), 100.0 * (4 + 3) + 1, 1.0])
    leaf = x.clone().requires_grad_()
    f(leaf).backward()
    same(leaf.grad, wanted)
    same(func.grad(f)(x), wanted)
    same(func.jvp(f, (x,), (polyop.ones(3),))[1], wanted.sum())
    same(func.linearize(f, x)[1](polyop.ones(3)), wanted.sum())


def test_a_tensor_from_outside_gets_a_derivative() -> None:
    """S137: what has no history before the write has one behind it."""

    def f(x: Tensor) -> Tensor:
        y = polyop.ones(3)
        Scaled.apply(y[1:], x[1:])
        return (y * y).sum()

    leaf = polyop.tensor(START, requires_grad=True)
    f(leaf).backward()
    wanted = polyop.tensor([0.0, 2 * 2.0 * 100, 2 * 3.0 * 100])
    same(leaf.grad, wanted)
    same(func.grad(f)(polyop.tensor(START)), wanted)


def test_grad_mode_hides_the_write_from_gradients_alone() -> None:
    """S134, S137: under `no_grad` the value changes, and forward mode goes on."""

    def f(x: Tensor) -> Tensor:
        y = x * 1
        with polyop.no_grad():
            tripled(polyop).apply(y)
        return (y * x).sum()

    x = polyop.tensor(START)
    ones = polyop.ones(3)
    same(func.grad(f)(x), x * 4)
    same(func.jvp(f, (x,), (ones,))[1], x.sum() * 6)
    same(func.linearize(f, x)[1](ones), x.sum() * 6)


def unreturned(x: Tensor) -> Tensor:
    """Mark an argument dirty that does not come back."""

    class Unreturned(autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.mul_(2) + 1

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.mark_dirty(inputs[0])

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g * 2

    made: Tensor = Unreturned.apply(x * 1)
    return made.sum()


def both(x: Tensor) -> Tensor:
    """Mark two arguments dirty that share memory."""

    class Both(autograd.Function):
        @staticmethod
        def forward(x: Tensor, y: Tensor) -> Any:
            return x.mul_(2), y.mul_(2)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.mark_dirty(*inputs)

        @staticmethod
        def backward(ctx: Any, g: Tensor, h: Tensor) -> Any:
            return g, h

    y = x * 1
    a, b = Both.apply(y, y[:1])
    made: Tensor = a.sum() + b.sum()
    return made


def of_hidden_view(x: Tensor) -> Tensor:
    """Write a view that was taken under no_grad."""
    y = x * 1
    with polyop.no_grad():
        view = y[:1]
    Scaled.apply(view, x[:1])
    return y.sum()


REFUSED: dict[str, tuple[Fn, str]] = {
    "leaf": (lambda x: tripled(polyop).apply(x).sum(), "Tripled writes a"),
    "view of a leaf": (lambda x: tripled(polyop).apply(x[:1]).sum(), "Tripled writes a view"),
    "not returned": (unreturned, "Unreturned marks an argument dirty, which is not one result"),
    "shared": (both, "Both marks two arguments that share memory dirty"),
    "hidden view": (of_hidden_view, "Scaled writes a view"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused(name: str) -> None:
    """S135, S137: by the name of the class, and at levels too."""
    f, text = REFUSED[name]
    with pytest.raises(MutationError, match=text):
        f(polyop.tensor(START, requires_grad=True))
    for apply in (func.grad, lambda f: lambda x: func.linearize(f, x)):
        if name != "hidden view" or apply is func.grad:
            with pytest.raises(MutationError, match=text.split()[0]):
                apply(f)(polyop.tensor(START))
