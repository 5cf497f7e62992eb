"""Dataclasses among the arguments: compiled functions see and write what eager ones do (S211)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.extend import make_wrapper_subclass

X = polyop.tensor([1.0, 2.0])


@dataclasses.dataclass
class State:
    w: Any
    k: float = 2.0
    rest: Any = None

    def scaled(self, x: Any) -> Any:
        return x * self.w * self.k


@dataclasses.dataclass(slots=True)
class Slotted:
    w: Any
    k: float = 2.0


@dataclasses.dataclass(frozen=True)
class Frozen:
    w: Any
    k: float = 2.0


class Outer(Tensor):
    """A tensor around another one, which a program takes instead."""

    def __new__(cls, w: Tensor) -> Any:
        t = make_wrapper_subclass(cls, w.shape, dtype=w.dtype, device=w.device)
        t.w = w
        return t

    def __tensor_flatten__(self) -> Any:
        return ["w"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, shape: Any, strides: Any) -> Any:
        return cls(inner["w"])

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return op(*[x.w if isinstance(x, cls) else x for x in args], **(kwargs or {}))


def full(k: float) -> Any:
    return polyop.full((2,), k)


def plain(x: Any, s: Any) -> Any:
    return x * s.w * s.k


def method(x: Any, s: Any) -> Any:
    return s.scaled(x)


@pytest.mark.parametrize("cls", [State, Slotted, Frozen])
@pytest.mark.parametrize("fn", [plain, method])
def test_new_objects(cls: Any, fn: Any) -> None:
    """S211: new tensors and new values in fields are those of the call."""
    if fn is method and cls is not State:
        return
    compiled = polyop.compile(fn, fullgraph=True)
    for k in (1.0, 2.0, 3.0):
        assert compiled(X, cls(full(k))).tolist() == fn(X, cls(full(k))).tolist()
    assert compiled(X, s=cls(full(1.0), 5.0)).tolist() == fn(X, cls(full(1.0), 5.0)).tolist()


def test_nested_ones() -> None:
    """S211: dataclasses in lists, dicts and dataclasses; one that is there twice is one."""

    def fn(s: Any) -> Any:
        return s.w * s.rest["a"][0].w + s.rest["b"].w * s.rest["b"].k

    compiled = polyop.compile(fn, fullgraph=True)
    for k in (1.0, 2.0, 3.0):
        inner = State(full(k + 1))
        s = State(full(k), rest={"a": [inner], "b": inner})
        assert compiled(s).tolist() == fn(s).tolist()
    apart = State(full(1.0), rest={"a": [State(full(4.0))], "b": State(full(5.0), 7.0)})
    assert compiled(apart).tolist() == fn(apart).tolist()


def test_gradients() -> None:
    """S211: tensors in fields have their gradients, and gradients of these."""
    w, x = full(3.0).requires_grad_(), X.clone().requires_grad_()
    y = polyop.compile(lambda x, s: (x * s.w).sin(), fullgraph=True)(x, State(w))
    (g,) = polyop.autograd.grad(y.sum(), [w], create_graph=True)
    assert np.allclose(g.detach().numpy(), X.numpy() * np.cos(3 * X.numpy()))
    (h,) = polyop.autograd.grad(g.sum(), [w])
    assert np.allclose(h.numpy(), -(X.numpy() ** 2) * np.sin(3 * X.numpy()))


def _set(x: Any, s: Any) -> Any:
    s.w = x * s.w
    s.k += 1
    return s.w * s.k


def _append(x: Any, s: Any) -> Any:
    s.rest.append(x * s.w)
    return s.rest[-1]


def _give(x: Any, s: Any) -> Any:
    s.w = s.w + x
    return s


def _write(x: Any, s: Any) -> Any:
    return s.w.add_(x) * 2


@pytest.mark.parametrize("fn", [_set, _append, _write])
def test_what_the_function_writes(fn: Any) -> None:
    """S211: the caller's object has it after each call, as eager."""
    compiled = polyop.compile(fn)
    ours, eager = State(full(2.0), rest=[]), State(full(2.0), rest=[])
    for _ in range(3):
        assert compiled(X, ours).tolist() == fn(X, eager).tolist()
        assert (ours.w.tolist(), ours.k) == (eager.w.tolist(), eager.k)
        assert [y.tolist() for y in ours.rest] == [y.tolist() for y in eager.rest]


def test_the_object_as_a_result() -> None:
    """S211: it is the caller's own."""
    compiled = polyop.compile(_give)
    s = State(full(2.0))
    assert compiled(X, s) is s
    assert s.w.tolist() == [3.0, 4.0]
    kept: list[Any] = []
    polyop.compile(lambda x, s: (kept.append(s), x * s.w)[1])(X, s)
    assert kept[0] is s


@dataclasses.dataclass(eq=False)
class Own:
    w: Any


def test_objects_that_are_told_apart() -> None:
    """S211: where code asks what an object is, or its class does, it is what it is."""
    known = State(full(2.0))
    table = {Own(full(2.0)): 3.0}
    (own,) = table
    by_identity = polyop.compile(lambda x, s: x * (5.0 if s is known else 7.0), fullgraph=True)
    by_hash = polyop.compile(lambda x, s: x * table.get(s, 7.0), fullgraph=True)
    assert by_identity(X, known).tolist() == [5.0, 10.0]
    assert by_identity(X, State(full(2.0))).tolist() == [7.0, 14.0]
    assert by_hash(X, own).tolist() == [3.0, 6.0]
    assert by_hash(X, Own(own.w)).tolist() == [7.0, 14.0]


def test_what_has_more_than_fields() -> None:
    """S211: another attribute, or an object that is in itself, is read where it lies."""
    s = State(full(2.0))
    s.more = 3.0  # type: ignore[attr-defined]
    compiled = polyop.compile(lambda x, s: x * s.w * s.more, fullgraph=True)
    for k in (3.0, 4.0):
        s.more = k  # type: ignore[attr-defined]
        assert compiled(X, s).tolist() == (X * 2.0 * k).tolist()
    s = State(full(2.0))
    s.rest = [s]
    found = polyop.compile(lambda x, s: x * s.rest[0].w, fullgraph=True)(X, s)
    assert found.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("make", [lambda: State(full(3.0)), lambda: Outer(full(3.0))])
def test_functions_of_installed_packages(
    make: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S165, S211: what such a function reads is looked at, whatever its arguments are."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "installed_package.py").write_text("K = 2.0\ndef fn(s): return s.w * s.w * K\n")
    monkeypatch.syspath_prepend(str(folder))
    import installed_package  # noqa: PLC0415

    compiled = polyop.compile(installed_package.fn, fullgraph=True)
    for k in (2.0, 5.0):
        installed_package.K = k
        assert compiled(make()).tolist() == [9.0 * k] * 2


def test_a_method_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """S211: the class is looked at, though no object of it is."""
    compiled = polyop.compile(method, fullgraph=True)
    assert compiled(X, State(full(3.0))).tolist() == (X * 6.0).tolist()
    monkeypatch.setattr(State, "scaled", lambda self, x: x * self.w)
    assert compiled(X, State(full(3.0))).tolist() == (X * 3.0).tolist()


def _in_order(x: Any, s: Any) -> Any:
    numbers = [v for v in vars(s).values() if isinstance(v, float)]
    return x * sum(v * 10**i for i, v in enumerate(numbers))


def _deleted(x: Any, s: Any) -> Any:
    del s.k
    return x * s.k


def _renewed(x: Any, s: Any) -> Any:
    s.rest = list(s.rest)
    return x * s.w


@pytest.mark.parametrize("fn", [_in_order, _deleted, _renewed])
def test_the_object_itself(fn: Any) -> None:
    """S211: the order and the absence of its attributes, and its containers, are eager's."""
    kept: list[Any] = [1]
    ours, eager = State(3.0, rest=kept), State(3.0, rest=kept)
    assert polyop.compile(fn)(X, ours).tolist() == fn(X, eager).tolist()
    assert list(vars(ours)) == list(vars(eager))
    assert (ours.rest is kept) is (eager.rest is kept)
