"""Living views of what is written are found, however old they are (S138)."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import polyop
from polyop import Tensor, func
from polyop.layers.autograd import holders


def leaf() -> Any:
    return polyop.tensor([1.0, 2.0, 3.0], dtype="float64", requires_grad=True)


@pytest.mark.parametrize("collections", [0, 1, 2, 3])
def test_views_of_every_age_get_the_history_of_a_write(collections: int) -> None:
    """S138: views taken before the write, and between writes, follow it."""
    x = leaf()
    base = x * 1.0
    views = []
    for factor in (2.0, 3.0):
        views.append(base[1:])
        for generation in range(collections):
            gc.collect(generation)
        base.mul_(factor)
    sum((v.sum() for v in views), base[0]).backward()
    assert x.grad.tolist() == [6.0, 12.0, 12.0]


def test_young_views_need_no_look_at_all_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """An augmented assignment has a view of its own; it is among the youngest objects."""
    base = leaf() * 1.0
    base[0] *= 2.0

    def everything(*_: object) -> list[object]:
        pytest.fail("the whole heap is looked through")

    gc.collect()
    monkeypatch.setattr(holders.gc, "get_referrers", everything)
    for _ in range(50):
        base[0] *= 2.0


def test_old_views_are_searched_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was found is remembered."""
    searched = []
    found = gc.get_referrers

    def counted(*objects: object) -> list[Any]:
        searched.append(len(objects))
        return found(*objects)

    x = leaf()
    base = x * 1.0
    view = base[1:]
    gc.collect()
    monkeypatch.setattr(holders.gc, "get_referrers", counted)
    for _ in range(20):
        base.mul_(2.0)
    view.sum().backward()
    assert x.grad.tolist() == [0.0, 2.0**20, 2.0**20]
    assert len(searched) == 1


def test_views_of_what_a_level_takes_over() -> None:
    """S138, S141: `func.grad` finds old views of a tensor from outside as well."""
    out = polyop.zeros(3, dtype="float64")
    view = out[1:]
    gc.collect()

    def f(x: Tensor) -> Tensor:
        out[:] = x * x
        return view.sum()

    assert func.grad(f)(leaf().detach()).tolist() == [0.0, 4.0, 6.0]
