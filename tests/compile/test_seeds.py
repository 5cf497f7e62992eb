"""What a function does to a random generator besides drawing is done each time (S211)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import Generator
from polyop.errors import CaptureError


def _seeded() -> Any:
    polyop.manual_seed(7)
    return polyop.rand(2)


def _closed_over() -> Any:
    held = Generator(1)

    def f() -> Any:
        held.manual_seed(3)
        return polyop.rand(2, generator=held)

    return f


def _put_back() -> Any:
    held = Generator(1)

    def f() -> Any:
        state = held.get_state()
        drawn = polyop.rand(2, generator=held)
        held.set_state(state)
        return drawn

    return f


def _made() -> Any:
    return polyop.rand(2, generator=Generator(5))


FUNCTIONS: dict[str, Callable[[], Any]] = {
    "manual_seed": lambda: _seeded,
    "of a generator": _closed_over,
    "state": _put_back,
    "a new generator": lambda: _made,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_seeds_inside(name: str) -> None:
    """S211, S212: the draws are eager's, in the call and after it; a program there is none."""

    def drawn(f: Any) -> Any:
        polyop.manual_seed(1)
        return [x.tolist() for _ in range(2) for x in (f(), polyop.rand(2))]

    assert drawn(polyop.compile(FUNCTIONS[name]())) == drawn(FUNCTIONS[name]())
    with pytest.raises(CaptureError, match="generator of random numbers"):
        polyop.compile(FUNCTIONS[name](), fullgraph=True)()
    with pytest.raises(CaptureError, match="generator of random numbers"):
        polyop.export.export(FUNCTIONS[name](), ())


def test_seeds_between_looks() -> None:
    """S212: a function that runs in parts seeds between its draws."""

    def f(x: Any) -> Any:
        if float(x.sum()) > 0:
            polyop.manual_seed(7)
        return x + polyop.rand(2)

    x = polyop.ones(2)
    compiled = polyop.compile(f)
    assert compiled(x).tolist() == compiled(x).tolist() == f(x).tolist()
