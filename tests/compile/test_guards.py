"""Programs are captured again exactly where what they relied on has changed (SPEC S211, S153)."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, errors

SCALE = 2.0
CONFIG = {"k": 1}


def count(f: Any) -> int:
    return sum(map(len, f.programs.values()))


def ones(*shape: int, dtype: str = "float32") -> Tensor:
    return polyop.from_numpy(np.ones(shape, dtype))


def test_sizes() -> None:
    """S211: sizes become symbolic at the second size; 0 and 1 are programs of their own."""
    f = polyop.compile(lambda x: x + 1, fullgraph=True)
    counts = []
    for n in (4, 4, 5, 6, 700, 1, 1, 0, 8):
        assert f(ones(n)).shape == (n,)
        counts.append(count(f))
    assert counts == [1, 1, 2, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(("dynamic", "expected"), [(True, 1), (False, 3), (None, 2)])
def test_dynamic(dynamic: Any, expected: int) -> None:
    """S211: dynamic=True is symbolic at once, False has a program per shape."""
    f = polyop.compile(lambda x: x + 1, fullgraph=True, dynamic=dynamic)
    for n in (3, 4, 5, 3):
        f(ones(n))
    assert count(f) == expected


def test_branch_on_a_size() -> None:
    """S211: a branch on a size is captured again only on its other side."""
    f = polyop.compile(lambda x: x * 2 if x.shape[0] > 4 else x * 3, fullgraph=True, dynamic=True)
    seen = [(f(ones(n))[0].item(), count(f)) for n in (8, 9, 3, 4, 10, 2)]
    assert seen == [(2, 1), (2, 1), (3, 2), (3, 2), (2, 2), (3, 2)]


def test_kinds() -> None:
    """S211: dtypes, ranks, layouts, requires_grad and grad mode have programs of their own."""
    f = polyop.compile(lambda x: x * 2, fullgraph=True)
    f(ones(3, 3))
    for i, x in enumerate(
        [
            ones(3, 3, dtype="float64"),
            ones(3),
            ones(3, 3).transpose(0, 1)[1:],
            ones(3, 3).requires_grad_(),
        ]
    ):
        f(x)
        assert count(f) == i + 2
    with polyop.no_grad():
        f(ones(3, 3))
    assert count(f) == 6


def test_layouts() -> None:
    """S211: results are right for every layout, views of other tensors too, with symbolic sizes."""
    f = polyop.compile(lambda x: x.reshape(-1) + 1, fullgraph=True, dynamic=True)
    for n in (3, 5, 7):
        x = polyop.from_numpy(np.arange(4.0 * n).reshape(n, 4))
        for view in (x.transpose(0, 1), x[1:], x[:, 1:3], x[::2]):
            assert np.array_equal(f(view).numpy(), view.numpy().reshape(-1) + 1)


def test_globals_and_closures(monkeypatch: pytest.MonkeyPatch) -> None:
    """S211: a global, a closed-over number or what a dict holds changes: captured again."""
    k = 1

    def fn(x: Tensor) -> Tensor:
        return x * SCALE + k + CONFIG["k"] + (lambda a: a * SCALE)(1)

    f = polyop.compile(fn, fullgraph=True)
    assert f(ones(1)).item() == 6
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert f(ones(1)).item() == 8
    k = 5
    assert f(ones(1)).item() == 12
    monkeypatch.setitem(CONFIG, "k", 2)
    assert f(ones(1)).item() == 13
    monkeypatch.setitem(globals(), "SCALE", np.float32(3.0))
    assert f(ones(1)).item() == 13


def test_attributes() -> None:
    """S211: attributes of objects, and of what they hold, are guarded."""

    class Linear:
        def __init__(self) -> None:
            self.weight = ones(2) * 3

        def __call__(self, x: Tensor) -> Tensor:
            return x * self.weight

    class Net:
        def __init__(self) -> None:
            self.parts = [Linear()]
            self.bias = 0

        def __call__(self, x: Tensor) -> Tensor:
            for part in self.parts:
                x = part(x) + self.bias
            return x

    net = Net()
    for f in (
        polyop.compile(net, fullgraph=True),
        polyop.compile(lambda n, x: n(x), fullgraph=True),
    ):
        call = f if f.fn is net else partial(f, net)
        net.bias, net.parts = 0, net.parts[:1]
        net.parts[0].weight = ones(2) * 3
        assert call(ones(2)).tolist() == [3, 3]
        net.bias = 1
        assert call(ones(2)).tolist() == [4, 4]
        net.parts[0].weight = ones(2)
        assert call(ones(2)).tolist() == [2, 2]
        net.parts.append(Linear())
        assert call(ones(2)).tolist() == [7, 7]


def test_side_effects() -> None:
    """S211: what the function changes outside it changes once per call; fullgraph refuses."""
    calls, log = 0, []

    def fn(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        log.append(x * 2)
        return x + calls

    f = polyop.compile(fn)
    assert [f(ones(1)).item() for _ in range(5)] == [2, 3, 4, 5, 6]
    assert (calls, [t.item() for t in log]) == (5, [2] * 5)
    with pytest.raises(errors.CaptureError, match="outside"):
        polyop.compile(fn, fullgraph=True)(ones(1))
    assert (calls, len(log)) == (5, 5)


def test_a_cache_that_fills() -> None:
    """S211: a function that fills a cache at its first call is captured at the next."""

    class Net:
        cache: Any = None

        def __init__(self) -> None:
            self.table: dict[int, float] = {}

        def __call__(self, x: Tensor) -> Tensor:
            self.table.setdefault(3, 2.0)
            return x * self.table[3]

    f = polyop.compile(Net())
    assert [f(ones(1)).item() for _ in range(3)] == [2, 2, 2]
    assert count(f) == 1


def test_cache_limit() -> None:
    """S211: no more than cache_size_limit programs are kept."""
    f = polyop.compile(lambda x, k: x * k, fullgraph=True, options={"cache_size_limit": 4})
    for k in range(20):
        assert f(ones(1), float(k)).item() == k
        assert count(f) <= 4


def test_backend() -> None:
    """S211: a backend gets each graph with example inputs, and its callable is what runs."""
    seen: list[Any] = []

    def backend(module: Any, examples: Any) -> Any:
        seen.append([tuple(t.shape) for t in examples])
        return lambda *inputs: module(*inputs)

    f = polyop.compile(lambda x: x.sin(), fullgraph=True, backend=backend)
    x = ones(3).requires_grad_()
    f(x).sum().backward()
    assert np.allclose(x.grad.numpy(), np.cos(1))
    assert seen == [[(3,)], [(3,), (3,)]]


def test_options() -> None:
    """S3, S211: an unknown backend or option is refused, and the nearest one named."""
    with pytest.raises(errors.UsageError, match="'graph'"):
        polyop.compile(lambda x: x, backend="grpah")
    with pytest.raises(errors.UsageError, match="cache_size_limit"):
        polyop.compile(lambda x: x, options={"cache_size_limits": 1})


def test_as_decorator() -> None:
    """S211: `compile` decorates, with and without options, and keeps the name."""

    @polyop.compile
    def f(x: Tensor) -> Tensor:
        """Say so."""
        return x

    assert (f.__name__, f.__doc__) == ("f", "Say so.")


def test_long_functions() -> None:
    """S211: capture and gradient of a long function neither recurse nor grow per node pair."""

    def fn(x: Tensor) -> Tensor:
        for _ in range(3000):
            x = x * 1.0001
        return x.sum()

    x = ones(2).requires_grad_()
    polyop.compile(fn, fullgraph=True)(x).backward()
    assert np.allclose(x.grad.numpy(), 1.0001**3000, rtol=1e-3)


class Slotted:
    __slots__ = ("k",)

    def __init__(self, k: float) -> None:
        self.k = k


def _slot() -> Any:
    held = Slotted(2.0)
    return lambda x: x * held.k, lambda k: setattr(held, "k", k)


def _class() -> Any:
    kind = type("Kind", (), {"k": 2.0})
    held = kind()
    return lambda x: x * held.k, lambda k: setattr(kind, "k", k)


def _default() -> Any:
    def f(x: Any, given: Any = ([2.0],)) -> Any:
        return x * given[0][0]

    return f, lambda k: f.__defaults__[0][0].__setitem__(0, k)  # type: ignore[index]


def _default_object() -> Any:
    held = Slotted(2.0)

    def f(x: Any, *, given: Any = held) -> Any:
        return x * given.k

    return f, lambda k: setattr(held, "k", k)


def _nested_list() -> Any:
    held = ([[2.0]],)
    return lambda x: x * held[0][0][0], lambda k: held[0][0].__setitem__(0, k)


def _module() -> Any:
    held = ModuleType("held")
    held.k = 2.0  # type: ignore[attr-defined]
    return lambda x: x * held.k, lambda k: setattr(held, "k", k)


@pytest.mark.parametrize("place", [_slot, _class, _default, _default_object, _nested_list, _module])
def test_values_in_slots_classes_defaults_tuples_and_modules(place: Any) -> None:
    """S165: a number that the function reads is part of the program only while it is the same."""
    f, change = place()
    compiled = polyop.compile(f, fullgraph=True)
    x = polyop.tensor([1.0, 3.0])
    for k in (2.0, 5.0, 2.0):
        change(k)
        assert compiled(x).tolist() == compiled(x).tolist() == [k, 3 * k]


def test_slots_that_the_function_changes() -> None:
    """S165: each call of a function that counts in a slot, or in its class, counts."""
    held = Slotted(0.0)
    kind = type("Kind", (), {"n": 0})

    def f(x: Any) -> Any:
        held.k += 1
        kind.n += 1  # type: ignore[attr-defined]
        return x * held.k + kind().n  # type: ignore[attr-defined]

    compiled = polyop.compile(f)
    assert [compiled(polyop.ones(1)).item() for _ in range(3)] == [2, 4, 6]
    assert held.k == 3
