"""Writes into tensors with a history, against PyTorch: what is written over has no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor, func

Program = Callable[[Any, Any], Any]


def assigned(a: Any, xp: Any) -> Any:
    x = a * 1
    x[3:] = 0.0
    return x


def filled_part(a: Any, xp: Any) -> Any:
    x = a * 1
    x[1:3].fill_(2.0)
    return x


def filled_whole(a: Any, xp: Any) -> Any:
    x = a * 1
    x.fill_(3.0)
    return x * a


def zeroed_part(a: Any, xp: Any) -> Any:
    x = a * 1
    x[:2].zero_()
    return x + a * a


def zeroed_whole(a: Any, xp: Any) -> Any:
    x = a * 1
    x.zero_()
    return x + a


def view_of_view(a: Any, xp: Any) -> Any:
    x = (a * 1)[None]
    x[..., 1:4] *= 2.0
    x[..., 4:] = 0.0
    return x[0]


def masked(a: Any, xp: Any) -> Any:
    x = a * 1
    x[xp.asarray([True, False, True, True, False])] = 2.0
    return x * a


def gathered(a: Any, xp: Any) -> Any:
    x = a * 1
    x[xp.asarray([1, 2])] *= 3
    return x * a


def scattered(a: Any, xp: Any) -> Any:
    x = xp.zeros(5, dtype=a.dtype)
    x[1:3] = a[1:3] * a[:2]
    x[xp.asarray([0, 3])] = a[3:]
    x[4] = a[0]
    return x * x


def scattered_into_view(a: Any, xp: Any) -> Any:
    x = xp.zeros((2, 5), dtype=a.dtype)
    row = x[1]
    row[xp.asarray([0, 1])] = a[:2] * 3
    row[2] = 7
    return x * x


def accumulated(a: Any, xp: Any) -> Any:
    x = a * 1
    x.index_put_((xp.asarray([0, 0, 1]),), a[:3], True)
    return x * x


PROGRAMS = [
    assigned, filled_part, filled_whole, zeroed_part, zeroed_whole, view_of_view, masked,
    gathered, scattered, scattered_into_view, accumulated,
]  # fmt: skip
#: These write no new array, and so work at a level too.
AT_LEVELS = [p for p in PROGRAMS if not p.__name__.startswith("scattered")]


def by_backward(program: Program, xp: Any) -> Any:
    a = xp.asarray(np.arange(1.0, 6)).requires_grad_()
    (program(a, xp) * xp.asarray(np.arange(2.0, 7))).sum().backward()
    return np.asarray(a.grad)


def by_func(program: Program, xp: Any) -> Any:
    grad = (polyop if xp is polyop else torch).func.grad
    return np.asarray(grad(lambda a: program(a, xp).sum())(xp.asarray(np.arange(1.0, 6))))


@pytest.mark.parametrize("program", PROGRAMS)
def test_backward_is_torchs(program: Program) -> None:
    """S135: a write has a gradient: what was overwritten gets none, what was written gets it."""
    np.testing.assert_allclose(by_backward(program, polyop), by_backward(program, torch))


@pytest.mark.parametrize("program", AT_LEVELS)
def test_func_grad_is_torchs(program: Program) -> None:
    """S134, S135: the same under `func.grad`."""
    np.testing.assert_allclose(by_func(program, polyop), by_func(program, torch))


JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "concat": lambda xp, a: xp.concat([a, a * 2]),
    "along": lambda xp, a: xp.concat([xp.stack([a, a]), xp.stack([a * 3])], 0),
    "stack": lambda xp, a: xp.stack([a, a * 2], 1),
    "hstack": lambda xp, a: xp.hstack([a, a]),
    "roll": lambda xp, a: xp.roll(a, 2),
    "flat": lambda xp, a: xp.concat([a, a[:2]]),
}


@pytest.mark.parametrize("join", JOINS.values(), ids=JOINS)
def test_what_is_joined_may_be_written(join: Any) -> None:
    """S125: joining keeps no tensor for its gradient, so a later write to one is no matter."""

    def gradient(xp: Any) -> Any:
        a = xp.asarray(np.arange(1.0, 6)).requires_grad_()
        x = a * 1
        joined = join(xp, x)
        x *= 2.0
        (joined * joined.detach()).sum().backward()
        return np.asarray(a.grad)

    np.testing.assert_array_equal(gradient(polyop), gradient(torch))


@pytest.mark.parametrize("fill", ["uniform_", "normal_"])
def test_random_numbers_end_the_history(fill: str) -> None:
    """S135: what is filled at random depends on nothing, in each mode and under each transform."""

    def drawn(x: Tensor) -> Tensor:
        polyop.manual_seed(3)
        return (x * getattr(x.detach().clone(), fill)()).sum()

    def filled(x: Tensor) -> Tensor:
        return (getattr(x * 1.0, fill)() + x).sum()

    x = polyop.ones(3, requires_grad=True)
    drawn(x).backward()
    wanted = x.grad.tolist()
    plain = x.detach()
    assert func.grad(drawn)(plain).tolist() == wanted
    assert func.jvp(drawn, (plain,), (plain,))[1].item() == pytest.approx(sum(wanted))
    assert func.grad(filled)(plain).tolist() == [1.0, 1.0, 1.0]
    assert func.jvp(filled, (plain,), (plain,))[1].item() == 3.0
    x.grad = None
    filled(x).backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


def quiet_whole(xp: Any, x: Any) -> Any:
    v = x * x
    w = v[:1]
    with xp.no_grad():
        v.add_(1)
    return (w * w).sum() + (v * x).sum()


def quiet_part(xp: Any, x: Any) -> Any:
    v = x * x
    with xp.no_grad():
        v[:1].mul_(x[:1])
    return (v * v).sum()


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("program", [quiet_whole, quiet_part])
def test_writes_without_grad_leave_the_history_at_every_level(program: Any) -> None:
    """S134, S135: second gradients are PyTorch's, whichever of the two is a level."""

    def found(xp: Any) -> list[list[float]]:
        first = xp.func.grad(lambda x: program(xp, x))
        second = xp.func.grad(lambda x: first(x).sum())
        x = xp.tensor([3.0, 2.0], requires_grad=True)
        outer = xp.autograd.grad(first(x).sum(), x)[0]
        x = x.detach()
        along = xp.func.jvp(first, (x,), (x,))[1]
        return [second(x).tolist(), outer.tolist(), along.tolist()]

    assert found(polyop) == found(torch)
