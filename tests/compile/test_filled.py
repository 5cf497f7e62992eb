"""Caches that a function fills: what was in them stays, and full ones stop no program (S211)."""

from __future__ import annotations

import functools
from typing import Any

import pytest

import polyop
from polyop.errors import CaptureError

X = polyop.tensor([1.0, 2.0])


@pytest.mark.parametrize("size", [None, 2, 128])
@pytest.mark.parametrize("whole", [False, True])
def test_a_cache_keeps_what_it_had(size: int | None, whole: bool) -> None:
    """S211: a capture takes its own fakes out of an `lru_cache`, and nothing else."""

    @functools.lru_cache(maxsize=size)
    def table(k: int) -> Any:
        return polyop.full((2,), float(k))

    before = table(4)
    compiled = polyop.compile(lambda x: x * table(2), fullgraph=whole)
    results = [compiled(X) for _ in range(3)]
    assert [x.tolist() for x in results] == [(X * 2.0).tolist()] * 3
    assert table(4) is before
    assert table(2).tolist() == [2.0, 2.0]
    for k in (5, 6, 7, 2):  # past the end of a short one
        assert table(k).tolist() == [float(k)] * 2
    assert len(compiled.programs) == 1


def test_a_cached_property() -> None:
    """S212: it is filled by an eager call, whose tensor the program has for a constant."""

    class Net:
        @functools.cached_property
        def table(self) -> Any:
            return polyop.full((2,), 3.0)

    net = Net()
    compiled = polyop.compile(lambda x: x * net.table, fullgraph=True)
    for _ in range(3):
        assert compiled(X).tolist() == (X * 3.0).tolist()
    assert len(compiled.programs) == 1
    net.table = polyop.full((2,), 5.0)
    assert compiled(X).tolist() == (X * 5.0).tolist()


def test_what_only_looks_like_a_cache() -> None:
    """S212: an attribute that is new at the first call may be a count."""

    class Net:
        def __call__(self, x: Any) -> Any:
            self.n = getattr(self, "n", 0) + 1
            return x * self.n

    with pytest.raises(CaptureError, match="outside it"):
        polyop.compile(Net(), fullgraph=True)(X)


def test_what_a_function_of_kinds_has_found() -> None:
    """S212: `singledispatch` remembers by the class; the calls after the first have a program."""

    @functools.singledispatch
    def scale(k: Any, x: Any) -> Any:
        return x

    scale.register(float, lambda k, x: x * k)
    compiled = polyop.compile(lambda x: scale(2.0, x), fullgraph=True)
    for _ in range(2):
        assert compiled(X).tolist() == (X * 2.0).tolist()
    assert len(compiled.programs) == 1
