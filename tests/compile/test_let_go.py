"""Compiled functions keep nothing alive that their guards know by what it is (S211)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.compile.quick import Quick

X = polyop.tensor([1.0, 2.0])
HELD: Any = None


class Net:
    """A module, with a list, a method of its own and a way back to itself."""

    kind: Any = None

    def __init__(self, k: float) -> None:
        self.w = polyop.full((2,), k)
        self.layers = [polyop.full((2,), k), self]
        self.act = self.scale

    def scale(self, x: Any) -> Any:
        return x * self.layers[0]

    def __call__(self, x: Any) -> Any:
        return self.act(x * self.w)


class Slotted:
    __slots__ = ("__weakref__", "w")

    def __init__(self, k: float) -> None:
        self.w = polyop.full((2,), k)


def _weight(k: float) -> tuple[Any, Any]:
    made = polyop.full((2,), k)
    return made, made


def _learned(k: float) -> tuple[Any, Any]:
    made = polyop.full((2,), k).requires_grad_()
    return made, made


def _listed(k: float) -> tuple[Any, Any]:
    made = polyop.full((2,), k)
    return [{"w": [made]}], made


def _module(k: float) -> tuple[Any, Any]:
    made = Net(k)
    return made, made


def _slots(k: float) -> tuple[Any, Any]:
    made = Slotted(k)
    return made, made.w


def _array(k: float) -> tuple[Any, Any]:
    made = np.full(2, k)
    return made, made


def _function(k: float) -> tuple[Any, Any]:
    w = polyop.full((2,), k)
    return lambda x: x * w, w


CASES: dict[str, tuple[Callable[[float], tuple[Any, Any]], Callable[[Any], Any]]] = {
    "tensor": (_weight, lambda x: x * HELD),
    "parameter": (_learned, lambda x: x * HELD),
    "result": (_weight, lambda x: (x * HELD, HELD)[0]),
    "list": (_listed, lambda x: x * HELD[0]["w"][0]),
    "module": (_module, lambda x: HELD(x)),
    "slot": (_slots, lambda x: x * HELD.w),
    "array": (_array, lambda x: x * float(HELD[0])),
    "function": (_function, lambda x: HELD(x)),
}


@pytest.mark.parametrize("name", CASES)
def test_former_values_of_a_global(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S211: what a global had before is gone, and so is its program; the new one counts."""
    make, fn = CASES[name]
    compiled = polyop.compile(fn, fullgraph=True)
    gone = []
    for k in (2.0, 3.0, 4.0):
        value, watched = make(k)
        monkeypatch.setitem(globals(), "HELD", value)
        assert compiled(X).tolist() == compiled(X).tolist() == fn(X).tolist()
        gone.append(weakref.ref(watched))
        del value, watched
        monkeypatch.undo()
        gc.collect()
        assert gone[-1]() is None
    assert sum(map(len, compiled.programs.values())) <= 1


@pytest.mark.parametrize("bound", [False, True])
def test_modules_that_are_arguments(bound: bool) -> None:
    """S211: neither an argument nor the owner of a compiled method outlives its last user."""

    class Owner(Net):
        @polyop.compile
        def run(self, x: Any) -> Any:
            return self(x)

    compiled = polyop.compile(lambda net, x: net(x), fullgraph=True)
    for k in (2.0, 3.0):
        net = Owner(k)
        found = net.run(X) if bound else compiled(net, X)
        assert found.tolist() == net(X).tolist()
        gone = weakref.ref(net)
        del net
        gc.collect()
        assert gone() is None
    compiled(Owner(5.0), X)
    assert len(compiled.programs) == 1


def test_what_comes_back_keeps_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """S211: two tensors that take turns are captured once each."""
    compiled = polyop.compile(lambda x: x * HELD, fullgraph=True)
    first, second = polyop.full((2,), 2.0), polyop.full((2,), 3.0)
    for held in (first, second) * 3:
        monkeypatch.setitem(globals(), "HELD", held)
        assert compiled(X).tolist() == (X * held).tolist()
    assert sum(map(len, compiled.programs.values())) == 2


def test_a_gradient_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """S211: backward has the tensors of its call, though the global has another one."""
    compiled = polyop.compile(lambda x: (x * HELD).sin(), fullgraph=True)
    monkeypatch.setitem(globals(), "HELD", polyop.full((2,), 2.0))
    x = polyop.tensor([1.0, 2.0]).requires_grad_()
    y = compiled(x)
    monkeypatch.setitem(globals(), "HELD", polyop.full((2,), 9.0))
    gc.collect()
    y.sum().backward()
    assert np.allclose(x.grad.numpy(), 2 * np.cos(2 * x.detach().numpy()))


def test_an_id_that_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """S211: values that get the place of others in memory are others."""

    def fn(x: Any) -> Any:
        return x * HELD.layers[0] * HELD.w + (0 if HELD.kind is None else HELD.kind[0])

    compiled = polyop.compile(fn, fullgraph=True)
    for i in range(30):
        monkeypatch.setitem(globals(), "HELD", Net(float(i)))
        monkeypatch.setattr(Net, "kind", (polyop.full((2,), float(i)),))
        assert compiled(X).tolist() == fn(X).tolist()
        HELD.layers = [polyop.full((2,), i + 0.5)]
        assert compiled(X).tolist() == fn(X).tolist()
        HELD.w = polyop.full((2,), i + 0.25)
        assert compiled(X).tolist() == fn(X).tolist()
        monkeypatch.undo()
        gc.collect()


def test_what_dies_between_the_guard_and_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """S211: where another thread lets go of a tensor just then, the function runs as it is."""
    compiled = polyop.compile(lambda x: x * HELD, fullgraph=True)
    monkeypatch.setitem(globals(), "HELD", polyop.full((2,), 2.0))
    compiled(X)
    quick = compiled._quick
    monkeypatch.undo()
    gc.collect()
    monkeypatch.setitem(globals(), "HELD", polyop.full((2,), 3.0))
    monkeypatch.setattr(Quick, "fits", lambda *_: True)
    compiled._quick = quick
    assert compiled(X).tolist() == [3.0, 6.0]
