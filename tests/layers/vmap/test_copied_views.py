"""Authors' view operators inside vmap: where their views are copies, nobody writes past them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import polyop
from polyop import Library, Tensor
from polyop.errors import VmapError

X = [[1.0, 2.0], [3.0, 4.0]]


@pytest.fixture
def op() -> Iterator[Any]:
    """Give an operator whose result is a view, and its library."""
    lib = Library("copied_views", "DEF")
    lib.define("head(Tensor(a) x) -> Tensor(a)")
    for key in ("CPU", "Meta"):
        lib.impl("head", lambda x: x[:1], key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield polyop.ops.copied_views.head, lib
    lib.destroy()


def through_the_view(head: Any, x: Tensor) -> Tensor:
    y = x * 1.0
    head(y).mul_(3.0)
    return y


def through_the_base(head: Any, x: Tensor) -> Tensor:
    y = x * 1.0
    v = head(y)
    y.mul_(3.0)
    return v


@pytest.mark.parametrize("program", [through_the_view, through_the_base])
def test_writes_are_refused_without_a_rule(program: Any, op: Any) -> None:
    """S159: the loop's results are copies; a write to either side would not reach the other."""
    head, lib = op
    x = polyop.tensor(X)
    wanted = [program(head, row).tolist() for row in x]
    with pytest.raises(VmapError, match="copied_views::head gave a view inside vmap"):
        polyop.vmap(lambda x: program(head, x))(x)
    with pytest.raises(VmapError, match="register_vmap"):
        polyop.func.grad(lambda x: polyop.vmap(lambda x: program(head, x))(x).sum())(x)
    rule = lambda info, dims, x: (x.movedim(dims[0], 0)[:, :1], 0)  # noqa: E731
    polyop.library.register_vmap("copied_views::head", rule, lib=lib)
    assert polyop.vmap(lambda x: program(head, x))(x).tolist() == wanted


def test_a_rule_that_copies_is_seen(op: Any) -> None:
    """S159: so are copies of an author's rule."""
    head, lib = op
    polyop.library.register_vmap(
        "copied_views::head", lambda info, dims, x: (x[:, :1].clone(), 0), lib=lib
    )
    with pytest.raises(VmapError, match="is a copy"):
        polyop.vmap(lambda x: through_the_view(head, x))(polyop.tensor(X))


def test_reading_goes_on(op: Any) -> None:
    """S159: only writes after the view was taken are refused."""
    head, _ = op

    def reading(x: Tensor) -> Tensor:
        y = x * 1.0
        y.mul_(2.0)
        return head(y) + y.sum()

    x = polyop.tensor(X)
    assert polyop.vmap(reading)(x).tolist() == [reading(row).tolist() for row in x]


def test_a_view_without_elements_loses_no_write(op: Any) -> None:
    """S159: an author's rule gives an empty view; what is written beside it stays."""
    head, lib = op

    def rule(info: Any, dims: Any, x: Tensor) -> tuple[Tensor, int]:
        return x.movedim(dims[0], 0)[:, :0], 0

    polyop.library.register_vmap("copied_views::head", rule, lib=lib)
    x = polyop.tensor(X)
    got = polyop.vmap(lambda x: through_the_base(head, x))(x)
    assert got.shape == (2, 0)
    written = polyop.vmap(lambda x: through_the_view(head, x))(x)
    assert written.tolist() == X
