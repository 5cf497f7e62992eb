"""Gradients of compiled functions under create_graph=True are those of eager (SPEC S211)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.compile.test_wrappers import couple, plain

import polyop
from polyop import Tensor, autograd, errors

Compile = Callable[[Any], Any]


def leaf(*values: float) -> Any:
    return polyop.tensor(list(values), dtype=polyop.float64, requires_grad=True)


def two(make: Compile, x: Tensor) -> Tensor:
    y: Tensor = make(lambda a, b: a * b * b)(x, x * x)
    return y


def three(make: Compile, x: Tensor) -> Tensor:
    u = x * x
    y: Tensor = make(lambda a, b, c: a * b.exp() * c + b * c)(x, u, (u * x).sin())
    return y


def view(make: Compile, x: Tensor) -> Tensor:
    y: Tensor = make(lambda a, b: a * b * b)(x, x[:])
    return y


def listed(make: Compile, x: Tensor) -> Tensor:
    y: Tensor = make(lambda given: given[0] * given[1] * given[1])([x, x * x])
    return y


def closed(make: Compile, x: Tensor) -> Tensor:
    w = x * x * x
    y: Tensor = make(lambda a: a * x * w * w)(x * 2)
    return y


def itself(make: Compile, x: Tensor) -> Tensor:
    y: Tensor = make(lambda a: a * x * a)(x)
    return y


def nested(make: Compile, x: Tensor) -> Tensor:
    inner = make(lambda p, q: p * q * q)
    y: Tensor = make(lambda a, b: inner(a, b * a) * b)(x, x.sin())
    return y


def chained(make: Compile, x: Tensor) -> Tensor:
    y: Tensor = make(lambda a, b: a * b)(x, make(lambda a, b: a * b * b)(x, x * x))
    return y


CASES = [two, three, view, listed, closed, itself, nested, chained]


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("case", CASES)
def test_inputs_that_are_computed_from_each_other(case: Any, dynamic: Any) -> None:
    """S211: the way from one input to another counts once, in gradients of every order."""
    seen = []
    for make in (lambda f: f, polyop.compile(fullgraph=True, dynamic=dynamic)):
        x = leaf(0.5, 0.9)
        out = case(make, x).sum()
        seen.append([autograd.grad(out, x, retain_graph=True)[0].tolist()])
        for _ in range(3):
            (g,) = autograd.grad(out, x, create_graph=True)
            seen[-1].append(g.tolist())
            out = (g * g).sum()
    for ours, eager in zip(seen[1], seen[0], strict=True):
        assert ours == pytest.approx(eager, rel=1e-12)


def test_wrappers_that_are_computed_from_each_other() -> None:
    """S211: the same for wrapper subclasses, with a recorded gradient and without."""
    seen = []
    for make in (lambda f: f, polyop.compile(fullgraph=True)):
        for record in (False, True):
            x = couple().requires_grad_()
            f = make(lambda a, b: a * b * b)
            x.register_hook(lambda g: g * 3)
            y = f(x, x * x)
            (g,) = autograd.grad([y], [x], [polyop.ones_like(y)], create_graph=record)
            seen.append(plain(g))
    assert seen[0] == seen[1] == seen[2] == seen[3]


@pytest.mark.parametrize("record", [False, True])
def test_hooks_of_inputs_run_once(record: bool) -> None:
    """S211: a hook of an argument, of a leaf or not, sees its gradient once."""
    seen = []
    for f in (lambda a: a * a, polyop.compile(lambda a: a * a, fullgraph=True)):
        x = leaf(1.0, 2.0)
        y = x * 3
        y.retain_grad()
        calls: list[Any] = []
        for t in (x, y):
            t.register_hook(lambda g, calls=calls: calls.append(g.tolist()))
            t.register_hook(lambda g: g * 2)
        (f(x).sum() + f(y).sum()).backward(create_graph=record)
        seen.append((x.grad.tolist(), y.grad.tolist(), calls))
    assert seen[0] == seen[1]


def test_a_hook_that_the_function_leaves_is_no_part_of_a_program() -> None:
    """S211: a hook that a function registers on an argument stays there, as in eager."""

    def fn(a: Any) -> Tensor:
        a.register_hook(lambda g: g * 2)
        return a * a

    f = polyop.compile(fn)
    x = leaf(1.0, 2.0)
    (f(x) + f(x)).sum().backward()
    y = leaf(1.0, 2.0)
    (fn(y) + fn(y)).sum().backward()
    assert x.grad.tolist() == y.grad.tolist()
    with pytest.raises(errors.CaptureError, match="requires grad"):
        polyop.compile(fn, fullgraph=True)(x)


def test_what_is_closed_over_keeps_its_own_graph() -> None:
    """S211: a capture leaves the history of tensors that are closed over, and their hooks."""
    x = leaf(1.0, 2.0)
    w = x * x
    calls: list[Any] = []
    w.register_hook(calls.append)
    y = polyop.compile(lambda a: a * w * x, fullgraph=True)(polyop.ones(2))
    assert not calls
    assert autograd.grad(y.sum(), x)[0].tolist() == [3, 12]
    assert len(calls) == 1


def test_values_that_changed_since_the_call() -> None:
    """S211: the first gradient is that of the call; one of a gradient is refused."""
    k = [2.0]
    f = polyop.compile(lambda a: a * a * k[0], fullgraph=True)
    x = leaf(1.0, 3.0)
    y = f(x).sum()
    k[0] = 5.0
    assert autograd.grad(y, x, retain_graph=True)[0].tolist() == [4, 12]
    with pytest.raises(errors.AutogradError, match="besides its arguments"):
        autograd.grad(y, x, create_graph=True)
    c = couple().requires_grad_()
    z = f(c).sum()
    k[0] = 6.0
    with pytest.raises(errors.AutogradError, match="besides its arguments"):
        autograd.grad(z, c, create_graph=True)


def test_tensors_that_were_written_since_the_call() -> None:
    """S211: what is closed over, and requires no grad, counts as much as an argument."""
    b = polyop.tensor([2.0, 3.0], dtype=polyop.float64)
    x = leaf(1.0, 3.0)
    y = polyop.compile(lambda a: (a + b) * a, fullgraph=True)(x).sum()
    b.mul_(2)
    assert autograd.grad(y, x, retain_graph=True)[0].tolist() == [4, 9]
    with pytest.raises(errors.AutogradError, match="written since"):
        autograd.grad(y, x, create_graph=True)
