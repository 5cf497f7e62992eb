"""Copies of tensors by `copy`, against PyTorch: what shares memory, and whose gradient is whose."""

from __future__ import annotations

import copy
import pickle
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import func
from polyop.autograd import grad
from polyop.errors import AutogradError


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_what_is_copied_together_shares_memory(order: tuple[int, ...]) -> None:
    """S136: views that are copied with their base are views of its copy, in any order."""

    def program(xp: Any) -> Any:
        x = xp.asarray(np.arange(6.0)).reshape(2, 3)
        row = x[1]
        kept = [[x, row, row[:2]][i] for i in order]
        made = copy.deepcopy(kept)
        made[0][...] = 9.0
        return [np.asarray(t).tolist() for t in (*made, *kept)]

    assert program(polyop) == program(torch)


def test_a_copied_view_is_one() -> None:
    """S136: a write to a copied view reaches the gradient of the copied base."""
    x = polyop.zeros(3)
    base, part = copy.deepcopy([x, x[1:]])
    w = polyop.ones(2).requires_grad_()
    part.add_(w)
    assert grad((base * base).sum(), w)[0].tolist() == [2.0, 2.0]
    assert x.tolist() == [0.0] * 3


def test_a_detached_view_of_what_was_computed() -> None:
    """S136: a base that cannot be copied does not keep its constant views from being copied."""
    x = polyop.ones(3).requires_grad_()
    with pytest.raises(AutogradError, match="deep copy"):
        copy.deepcopy(x * 1)
    part = (x * 2).detach()[1:]
    assert copy.deepcopy(part).tolist() == [2.0, 2.0]


def test_a_deep_copy_has_a_gradient_of_its_own() -> None:
    """S138: the `.grad` of a leaf is copied with it."""

    def program(xp: Any) -> Any:
        x = xp.asarray(np.arange(3.0)).requires_grad_()
        (x * x).sum().backward()
        made = copy.deepcopy(x)
        made.grad[0] = 7.0
        (made * 3).sum().backward()
        return x.grad.tolist(), made.grad.tolist(), made.is_leaf

    assert program(polyop) == program(torch)


def twice(x: Any) -> Any:
    return copy.copy(x) * 2 + x


@pytest.mark.parametrize("way", ["eager", "compiled", "traced"])
def test_a_shallow_copy_of_a_leaf_is_a_leaf(way: str) -> None:
    """S138: the gradient of a copied leaf is the copy's own, in captured programs as in eager."""
    y = torch.ones(2, requires_grad=True)
    twice(y).sum().backward()
    x = polyop.ones(2).requires_grad_()
    made = {
        "eager": lambda: twice,
        "compiled": lambda: polyop.compile(twice),
        "traced": lambda: polyop.graph.make_fx(twice)(x),
    }[way]()
    made(x).sum().backward()
    assert x.grad.tolist() == y.grad.tolist()


def test_a_shallow_copy_of_what_was_computed() -> None:
    """S138: gradients flow through a shallow copy of a computed tensor."""
    for program in (lambda x: twice(x * 1), polyop.compile(lambda x: twice(x * 1))):
        x = polyop.ones(2).requires_grad_()
        program(x).sum().backward()
        assert x.grad.tolist() == [3.0, 3.0]


def squares(copied: Any) -> list[Any]:
    """Differentiate `x * x`, one factor of it copied, in several ways."""
    x, one = polyop.asarray(np.arange(1.0, 4.0)), polyop.ones(3, dtype=polyop.float64)
    leaf = polyop.asarray(np.arange(1.0, 4.0)).requires_grad_()

    def square(t: Any) -> Any:
        return (copied(t) * t).sum()

    return [
        func.grad(square)(x),
        func.jvp(square, (x,), (one,))[1],
        func.jacfwd(square)(x),
        func.jvp(lambda t: func.jvp(square, (t,), (one,))[1], (x,), (one,))[1],
        func.vmap(lambda t: func.jvp(square, (t,), (one[0],))[1])(x),
        func.grad(lambda t: func.vmap(square)(t).sum())(x),
        func.grad(func.functionalize(square))(x),
        func.jvp(func.functionalize(square), (x,), (one,))[1],
        func.jvp(func.grad(square), (x,), (one,))[1],
        grad(func.vmap(square)(leaf).sum(), leaf)[0],
    ]


@pytest.mark.parametrize("computed", [False, True])
def test_derivatives_flow_through_a_deep_copy_inside_a_transform(computed: bool) -> None:
    """S134: in every derivative a deep copy counts as a clone, at each level."""
    made = squares(lambda t: copy.deepcopy(t * 1 if computed else t))
    assert [t.tolist() for t in made] == [t.tolist() for t in squares(lambda t: t.clone())]


def test_a_deep_copy_of_a_constant_inside_a_transform() -> None:
    """S134: what was detached has no derivative as a copy either."""
    x = polyop.asarray(np.arange(1.0, 4.0))
    one = polyop.ones(3, dtype=polyop.float64)

    def program(t: Any) -> Any:
        base, part = copy.deepcopy([t.detach(), t.detach()[:2]])
        part = base[:2] * part
        return (part * t[:2]).sum()

    assert func.jvp(program, (x,), (one,))[1].item() == 5.0
    assert func.grad(program)(x).tolist() == [1.0, 4.0, 0.0]


def test_a_deep_copy_of_a_view_inside_a_transform() -> None:
    """S134: it would be taken again without its derivative, and is refused."""
    x, one = polyop.ones(3), polyop.ones(3)
    with pytest.raises(AutogradError, match=r"deep copy of a view[^$]*core::slice"):
        func.jvp(lambda t: copy.deepcopy(t[:2]).sum(), (x,), (one,))
    assert func.vmap(lambda t: copy.deepcopy(t[:2]).sum())(x.reshape(1, 3)).tolist() == [2.0]


@pytest.mark.parametrize("inner", [lambda f: f, func.functionalize, func.vmap])
@pytest.mark.parametrize("outer", ["grad", "jvp"])
def test_a_pickle_inside_a_derivative(inner: Any, outer: str) -> None:
    """S134: a pickle would lose the derivative, of whichever level, and is refused."""

    def program(t: Any) -> Any:
        return inner(lambda u: pickle.loads(pickle.dumps(u)) * u)(t).sum()

    x = polyop.ones(3)
    with pytest.raises(AutogradError, match="pickle of a tensor inside a transform"):
        func.grad(program)(x) if outer == "grad" else func.jvp(program, (x,), (x,))


def test_a_deep_copy_of_a_long_chain_of_views() -> None:
    """S136: the last of many views is copied, and is a view of the copy of the first."""
    x = polyop.zeros(3)
    last = x
    for _ in range(1500):
        last = last[:]
    part, base = copy.deepcopy([last, x])
    part.add_(1.0)
    assert (base.tolist(), x.tolist()) == ([1.0] * 3, [0.0] * 3)
