"""Operators with several results of which some are views, functionalized and exported (S168)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop as p
from polyop import tree
from polyop.export import export
from polyop.func import functionalize

Program = Callable[..., Any]
NS = "severalviews"
OPERATORS: dict[str, tuple[str, Program]] = {
    "both": ("(Tensor(a) x) -> (Tensor(a), Tensor(a))", lambda x: (x[:1], x[1:])),
    "one": ("(Tensor(a) x) -> (Tensor(a), Tensor)", lambda x: (x[:1], x[1:] * 1)),
    "second": ("(Tensor(a) x) -> (Tensor, Tensor(a))", lambda x: (x[1:] * 1, x[:1])),
    "listed": ("(Tensor(a) x) -> (Tensor(a)[], Tensor)", lambda x: ([x[:1], x[1:]], x * 1)),
    "each": (
        "(Tensor(a) x, Tensor(b) y) -> (Tensor(a), Tensor(b))",
        lambda x, y: (x[:1], y[1:]),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def lib() -> Iterator[p.Library]:
    """Define the operators."""
    made = p.Library(NS, "FRAGMENT")
    for name, (signature, kernel) in OPERATORS.items():
        made.define(name + signature)
        for key in ("CPU", "Meta"):
            made.impl(name, kernel, key)
    yield made
    made._destroy()


def call(name: str, x: Any, y: Any) -> Any:
    op = getattr(getattr(p.ops, NS), name)
    return op(x, y) if name == "each" else op(x)


def alone(name: str, x: Any, y: Any) -> Any:
    return call(name, x, y)


def then_written(name: str, x: Any, y: Any) -> Any:
    made = call(name, x, y)
    x.mul_(2.0)
    y.add_(1.0)
    return made


def of_a_value(name: str, x: Any, y: Any) -> Any:
    x, y = x * 1, y * 1
    return then_written(name, x, y)


def observe(f: Program) -> Any:
    """Give the results as they are nested, and the arguments afterwards."""
    x, y = p.tensor([1.0, 2.0, 3.0]), p.tensor([4.0, 5.0, 6.0])
    return tree.map_leaves(lambda t: t.numpy().tolist(), (f(x, y), x, y))


FORMS: dict[str, Callable[[Program], Program]] = {
    "functionalize": functionalize,
    "without views": lambda f: functionalize(f, remove="mutations_and_views"),
    "export": lambda f: export(f, (p.zeros(3), p.zeros(3))).module(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("program", [alone, then_written, of_a_value], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", OPERATORS)
def test_results_are_those_of_the_operator(name: str, program: Program, form: str) -> None:
    """S168: each result is itself, nested as it was, also after its base is written."""

    def f(x: Any, y: Any) -> Any:
        return program(name, x, y)

    assert observe(FORMS[form](f)) == observe(f)


def test_arguments_that_are_such_views_are_views_of_one_base() -> None:
    """S168: a write to one argument is seen by another that the same call gave."""

    def f(a: Any, b: Any) -> Any:
        a.mul_(10.0)
        b.add_(1.0)
        return a * 1, b * 1

    found = []
    for form in (f, functionalize(f)):
        x = p.tensor([1.0, 2.0, 3.0])
        first, rest = getattr(p.ops, NS).both(x)
        try:
            made = form(first, rest)
        except p.errors.MutationError as error:
            # No inverse of the operator is known, so a write to its view is refused.
            assert form is not f
            assert "cannot be functionalized" in str(error)
            continue
        found.append([t.numpy().tolist() for t in (*made, x)])
    assert found == [[[10.0], [3.0, 4.0], [10.0, 3.0, 4.0]]]
