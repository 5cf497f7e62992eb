"""Writes by operators without derivative, where no gradient passes through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import func
from polyop.errors import AutogradError, MutationError
from polyop.library import Library

Program = Callable[[Any, Any, Any], Any]
NS = "unfollowed"


@pytest.fixture(scope="module")
def writers() -> Iterator[tuple[Any, Any]]:
    """Define one operator here and in PyTorch: it adds to what it writes, and gives the double."""
    ours, theirs = Library(NS, "FRAGMENT"), torch.library.Library(NS, "FRAGMENT")
    made: list[Any] = []
    for library, space in ((ours, polyop.ops), (theirs, torch.ops)):
        library.define("add_to(Tensor(a!) t, Tensor x) -> Tensor")  # type: ignore[attr-defined]
        library.impl("add_to", lambda t, x: (t.add_(x), x * 2)[1], "CPU")  # type: ignore[attr-defined]
        made.append(getattr(space, NS).add_to)
    ours.define("pair(Tensor(a!) t, Tensor(b!)[] u, Tensor x) -> (Tensor(a!), Tensor)")
    ours.impl("pair", lambda t, u, x: (t.add_(x), x * 2, [v.add_(x) for v in u])[:2], "CPU")
    yield made[0], made[1]
    ours._destroy()


def detached(x: Any, xp: Any, write: Any) -> Any:
    t = xp.zeros(2, dtype=x.dtype)
    double = write(t, x.detach())
    return (x * t * double).sum()


def recorded_nowhere(x: Any, xp: Any, write: Any) -> Any:
    t = xp.zeros(2, dtype=x.dtype)
    with xp.no_grad():
        double = write(t, x)
    return (x * t * double).sum()


def through_a_view(x: Any, xp: Any, write: Any) -> Any:
    t = xp.zeros((2, 2), dtype=x.dtype)
    row = t[1]
    with xp.no_grad():
        write(row, x)
    return (x * t).sum() + (x * x * row).sum()


def with_a_history(x: Any, xp: Any, write: Any) -> Any:
    y = x * 2
    column = y[:1]
    with xp.no_grad():
        write(y, x)
    return (x * y).sum() + column.sum()


PROGRAMS = [detached, recorded_nowhere, through_a_view, with_a_history]


@pytest.mark.filterwarnings("ignore:.*has no vmap rule")  # a functional twin has none
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_gradient_does_not_mind_them(program: Program, writers: Any) -> None:
    """S129, S130: `func.grad` of such a write is what backward gives, and PyTorch."""
    ours, theirs = writers
    f = lambda x: program(x, polyop, ours)  # noqa: E731
    x = np.asarray([1.5, -2.0])
    want = torch.func.grad(lambda x: program(x, torch, theirs))(torch.tensor(x)).numpy()
    leaf = polyop.from_numpy(x).requires_grad_()
    f(leaf).backward()
    np.testing.assert_array_equal(leaf.grad.numpy(), want)
    x = polyop.from_numpy(x)
    np.testing.assert_array_equal(func.grad(f)(x).numpy(), want)
    np.testing.assert_array_equal(func.vmap(func.grad(f))(x[None])[0].numpy(), want)
    np.testing.assert_array_equal(func.grad(func.functionalize(f))(x).numpy(), want)


def test_a_forward_derivative_does_not_mind_them(writers: Any) -> None:
    """S129: what has no tangent is written under `func.jvp` as well."""
    f = lambda x: detached(x, polyop, writers[0])  # noqa: E731
    x = polyop.tensor([1.5, -2.0])
    value, slope = func.jvp(f, (x,), (polyop.ones(2),))
    assert value.item() == f(x).item()
    assert slope.item() == func.grad(f)(x).sum().item()


def test_several_written_arguments(writers: Any) -> None:
    """S129, S168: each written argument gets its own value; one that comes back is itself."""

    def f(x: Any) -> Any:
        t, u, v = polyop.zeros(2), polyop.ones(2), polyop.ones(2, 2)
        same, double = polyop.ops.unfollowed.pair(t, [u, v[0]], x.detach())
        assert same is t
        return (x * t * u * v[0] * double).sum() + v.sum()

    x = polyop.tensor([1.5, -2.0]).requires_grad_()
    f(x).backward()
    assert func.grad(f)(x.detach()).tolist() == x.grad.tolist()


def test_a_tensor_from_outside_has_the_value_afterwards(writers: Any) -> None:
    """S130: the write is seen by all who have the tensor."""
    held = polyop.zeros(2)
    x = polyop.tensor([1.5, -2.0])

    def f(x: Any) -> Any:
        writers[0](held, x.detach())
        return (x * held).sum()

    assert func.grad(f)(x).tolist() == held.tolist() == x.tolist()


def test_what_would_be_lost_is_refused(writers: Any) -> None:
    """S129, S136: a write that a gradient passes through, and one of shared memory, are errors."""
    x = polyop.tensor([1.5, -2.0])

    def followed(x: Any) -> Any:
        t = polyop.zeros(2)
        writers[0](t, x)
        return (x * t).sum()

    def shared(x: Any) -> Any:
        t = polyop.zeros(3)
        polyop.ops.unfollowed.pair(t[:2], [t[1:]], x.detach())
        return (x * t[0]).sum()

    with pytest.raises(AutogradError, match="gradient cannot follow"):
        func.grad(followed)(x)
    with pytest.raises(MutationError, match="two of its arguments share"):
        func.grad(shared)(x)
