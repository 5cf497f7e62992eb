"""Calls that write tensors of a functionalized function and others, which it closes over (S168)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.errors import MutationError
from polyop.func import functionalize


@pytest.fixture(autouse=True)
def lib() -> Iterator[polyop.Library]:
    """Define an operator that writes a list."""
    made = polyop.Library("fromoutside", "FRAGMENT")
    made.define("add_to_(Tensor(a!)[] many, Tensor x) -> Tensor")
    made.impl("add_to_", add_to, "CompositeExplicitAutograd")
    yield made
    made.destroy()


def add_to(many: list[Tensor], x: Tensor) -> Tensor:
    for i, t in enumerate(many):
        t.mul_(i + 2).add_(x)
    return x * 1


def programs(outside: Tensor) -> dict[str, Callable[[Tensor], Any]]:
    def call(many: list[Tensor], x: Tensor) -> list[Tensor]:
        return [polyop.ops.fromoutside.add_to_(many, x), *many]

    return {
        "made of it": lambda x: call([outside.clone(), x.clone()], x),
        "itself": lambda x: [*call([outside, x.clone()], x), outside * 1],
        "its view": lambda x: [*call([x.clone()[1:], outside[:1]], x[:1]), outside * 1],
        "an argument": lambda x: call([x, outside], x * 1),
    }


@pytest.mark.parametrize("name", programs(polyop.ones(2)))
def test_both_are_written(name: str) -> None:
    """S168: results, arguments and what is outside are as the function itself leaves them."""
    seen = []
    for form in (lambda f: f, functionalize):
        outside, x = polyop.tensor([5.0, 6.0]), polyop.tensor([1.0, 2.0])
        out = form(programs(outside)[name])(x)
        seen.append([t.tolist() for t in (*out, outside, x)])
    assert seen[0] == seen[1]


def test_memory_that_is_given_twice_is_refused() -> None:
    """S168: which write comes last is not known, so nothing is written."""
    outside = polyop.ones(2)
    with pytest.raises(MutationError, match="gets memory twice"):
        functionalize(
            lambda x: polyop.ops.fromoutside.add_to_([outside, x.clone(), outside[:1]], x[:1])
        )(polyop.ones(2))
    assert outside.tolist() == [1, 1]
