"""What a function writes outside its arguments is written once per call (SPEC S211)."""

from __future__ import annotations

import collections
import functools
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.errors import CaptureError

X = polyop.tensor([1.0, 2.0])
CALLS = 0


class Counting:
    def step(self, x: Any) -> Any:
        global CALLS  # noqa: PLW0603
        CALLS += 1
        return x + CALLS


def _global() -> Any:
    global CALLS  # noqa: PLW0603
    CALLS = 0
    return Counting().step, lambda: CALLS


def _counted(held: Any, key: Any) -> Any:
    def f(x: Any) -> Any:
        held[key] += 1
        return x + float(held[key])

    return f, lambda: held[key]


def _attribute() -> Any:
    def f(x: Any) -> Any:
        f.n += 1  # type: ignore[attr-defined]
        return x + f.n  # type: ignore[attr-defined]

    f.n = 0  # type: ignore[attr-defined]
    return f, lambda: f.n  # type: ignore[attr-defined]


def _new_attribute() -> Any:
    def f(x: Any) -> Any:
        f.n = getattr(f, "n", 0) + 1  # type: ignore[attr-defined]
        return x + f.n  # type: ignore[attr-defined]

    return f, lambda: f.n  # type: ignore[attr-defined]


def _deque() -> Any:
    held: collections.deque[Any] = collections.deque(maxlen=3)

    def f(x: Any) -> Any:
        held.append(x * 2)
        return x + len(held)

    return f, lambda: [one.tolist() for one in held]


def _cache() -> Any:
    made: list[Any] = []

    @functools.lru_cache
    def scaled(k: float) -> Any:
        return X * k

    def f(x: Any) -> Any:
        made.append(1)
        return x + scaled(2.0)

    return f, lambda: (len(made), scaled(2.0).tolist())


WAYS = {
    "global in a method": _global,
    "Counter": lambda: _counted(collections.Counter(), "a"),
    "subclass of dict": lambda: _counted(type("Own", (dict,), {})(a=0), "a"),
    "OrderedDict": lambda: _counted(collections.OrderedDict(b=1, a=0), "a"),
    "long list": lambda: _counted([0] * 200, 150),
    "too long a list": lambda: _counted([0] * 20_000, 1),
    "NumPy's array": lambda: _counted(np.zeros(2), 1),
    "bytearray": lambda: _counted(bytearray(2), 1),
    "function attribute": _attribute,
    "new attribute": _new_attribute,
    "deque of tensors": _deque,
    "cache of tensors": _cache,
}


@pytest.mark.parametrize("way", WAYS)
def test_each_call_writes_once(way: str) -> None:
    """S211, S212: results and state are those of eager calls; one graph there is none."""
    f, state = WAYS[way]()
    eager = [(f(X).tolist(), state()) for _ in range(4)]
    f, state = WAYS[way]()
    compiled = polyop.compile(f)
    assert [(compiled(X).tolist(), state()) for _ in range(4)] == eager
    f, state = WAYS[way]()
    with pytest.raises(CaptureError, match=r"outside it|cannot be looked at"):
        polyop.compile(f, fullgraph=True)(X)
    assert [(f(X).tolist(), state()) for _ in range(4)] == eager  # the refusal left nothing


def test_a_container_from_outside_as_a_result() -> None:
    """S211: it is the same one, as in an eager call."""
    kept = [X, X * 2]
    compiled = polyop.compile(lambda x: (kept, x * 2))
    for _ in range(2):
        assert compiled(X)[0] is kept
    with pytest.raises(CaptureError, match="from outside"):
        polyop.compile(lambda x: kept, fullgraph=True)(X)


def test_a_write_in_a_part_counts_once() -> None:
    """S212: where the function is cut, each write to a tensor is one in its count."""
    outer = polyop.ones(2)

    def f(x: Any) -> Any:
        x.add_(1)
        if float(x.sum()) > 0:
            x.mul_(2)
        outer.add_(x[:1])
        return x * 2

    compiled = polyop.compile(f)
    for calls in (1, 2):
        x, view = polyop.ones(2), polyop.ones((2, 2))[0]
        compiled(x)
        assert (x._version, outer._version) == (2, 2 * calls - 1)
        compiled(view)
        assert (view._version, outer._version) == (2, 2 * calls)
