"""Results of compiled calls that are views of tensors that require grad (S211)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polyop as p
from polyop import tree

NS = "passedviews"
OPERATORS: dict[str, tuple[str, Callable[..., Any]]] = {
    "listed": ("(Tensor(a) x) -> Tensor(a)[]", lambda x: [x[:1], x[1:]]),
    "first": ("(Tensor(a) x) -> (Tensor(a), Tensor)", lambda x: (x[1:], x[:1] * 1)),
    "of_second": (
        "(Tensor x, int n, Tensor(b) y, int m) -> (Tensor(b)[], Tensor)",
        lambda x, n, y, m: ([y[n:], y[:m]], x * 1),
    ),
    "add_sum": ("(Tensor x, Tensor(b!) b) -> ()", lambda x, b: None),
}


@pytest.fixture(scope="module", autouse=True)
def lib() -> Iterator[p.Library]:
    """Define the operators."""
    made = p.Library(NS, "FRAGMENT")
    for name, (signature, kernel) in OPERATORS.items():
        made.define(name + signature)
        made.impl(name, add_sum if name == "add_sum" else kernel, "CPU")
        made.impl(name, kernel, "Meta")
    yield made
    made._destroy()


def add_sum(x: Any, b: Any) -> None:
    b.numpy()[...] += x.numpy().sum()


def op(name: str) -> Any:
    return getattr(getattr(p.ops, NS), name)


def written(x: Any, y: Any) -> Any:
    v = x.detach()
    op("add_sum")(x, v[0:1])
    return v


def made_a_leaf(x: Any, y: Any) -> Any:
    return x.detach().requires_grad_()


PROGRAMS: dict[str, Callable[[Any, Any], Any]] = {
    "listed": lambda x, y: op("listed")(x),
    "first": lambda x, y: op("first")(x),
    "of_second": lambda x, y: op("of_second")(x, 1, y, 2),
    "view": lambda x, y: x.reshape(-1)[1:],
    "written through detach": written,
    "made a leaf": made_a_leaf,
}


def observe(f: Callable[..., Any]) -> Any:
    """Give the results, whether they require grad, and with which argument they share memory."""
    args = [p.ones(3, requires_grad=True) * n for n in (1, 3)]
    results = list(tree.leaves(f(*args)))
    arrays = [x.numpy(force=True) for x in args]
    return [
        (
            t.numpy(force=True).tolist(),
            t.requires_grad,
            [bool(np.shares_memory(t.numpy(force=True), a)) for a in arrays],
        )
        for t in results
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_are_those_of_the_eager_call(name: str) -> None:
    """S211: a compiled call gives the views of its arguments, and says which require grad."""
    assert observe(p.compile(PROGRAMS[name])) == observe(PROGRAMS[name])


def test_views_in_a_list_need_no_eager_call() -> None:
    """S211: a list of views of an argument is taken again by the program."""
    x = p.ones(3, requires_grad=True) * 1
    first, rest = p.compile(op("listed"), fullgraph=True)(x)
    assert first.shape == (1,)
    assert rest.shape == (2,)
