"""Operators of users' own classes, called by the object that the class made."""

from __future__ import annotations

from typing import Any

import pytest

import polyop
from polyop.extend import SubgraphOperator


class Scaled(SubgraphOperator):
    """Calls its function with an argument that it changes by its own number."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.scale = 2.0

    def __call__(self, fn: Any, /, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return super().__call__(fn, *args, **{"scale": self.scale} | options)

    def eager(self, fn: Any, /, *args: Any, **options: Any) -> Any:
        """Scale."""
        return fn(*[x * options["scale"] for x in args])


@pytest.fixture(scope="module")
def scaled() -> Scaled:
    """The operator."""
    return Scaled("users_scaled")


def test_an_operator_of_a_users_class_is_captured(scaled: Scaled) -> None:
    """S211, S213: what it keeps for its calls is no state of the function."""
    f = lambda x: scaled(lambda y: y + 1, x)  # noqa: E731
    x = polyop.ones(2)
    assert polyop.compile(f, fullgraph=True)(x).tolist() == f(x).tolist() == [3, 3]
    assert polyop.export.export(f, (x,)).module()(x).tolist() == [3, 3]


def test_what_a_user_keeps_on_it_is_looked_at(scaled: Scaled) -> None:
    """S211: a number of the user's on the object is read anew."""
    f = polyop.compile(lambda x: scaled(lambda y: y + 1, x), fullgraph=True)
    x = polyop.ones(2)
    assert f(x).tolist() == [3, 3]
    scaled.scale = 4.0
    assert f(x).tolist() == [5, 5]
    scaled.scale = 2.0
