"""What a function reads is seen wherever its code is, and wherever it is kept (SPEC S211)."""

from __future__ import annotations

import array
import collections
import contextvars
import functools
import random
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.errors import CaptureError

S = 1.0
X = polyop.tensor([1.0, 2.0])
Change = Callable[[float], Any]


def set_global(k: float) -> None:
    globals()["S"] = k


class Net:
    """Its code reads a global, in every way that a class has code."""

    def __call__(self, x: Any) -> Any:
        return x * S

    def __getitem__(self, i: int) -> float:
        return S

    def forward(self, x: Any) -> Any:
        return x * S

    @property
    def scale(self) -> float:
        return S

    @functools.cached_property
    def inner(self) -> Net:
        return Net()

    @classmethod
    def of_class(cls, x: Any) -> Any:
        return x * S

    @staticmethod
    def of_none(x: Any) -> Any:
        return x * S


class Sub(Net):
    def forward(self, x: Any) -> Any:
        return super().forward(x)


NET, SUB = Net(), Sub()
READERS: dict[str, Any] = {
    "called": lambda x: NET(x),
    "method": lambda x: NET.forward(x),
    "super": lambda x: SUB.forward(x),
    "property": lambda x: x * NET.scale,
    "item": lambda x: x * NET[0],
    "classmethod": lambda x: Net.of_class(x),
    "staticmethod": lambda x: Net.of_none(x),
    "made": lambda x: Net()(x),
    "getattr": lambda x: getattr(NET, "forward")(x),  # noqa: B009
    "made name": lambda x: getattr(NET, "_".join(["of", "none"]))(x),
    "in a list": (lambda fs: lambda x: fs[0](x))([lambda x: x * S]),
    "in a dict": (lambda fs: lambda x: fs["f"](x))({"f": lambda x: x * S}),
    "partial": functools.partial(lambda f, x: f(x), NET.forward),
    "partial by keyword": functools.partial(lambda x, f: f(x), f=NET.forward),
    "default": lambda x, f=NET.forward: f(x),
    "module": lambda x: x * sys.modules[__name__].S,
    "eval": lambda x: x * eval("S"),
    "globals": lambda x: x * globals()["S"],
}


@pytest.mark.parametrize("name", READERS)
def test_globals_that_code_elsewhere_reads(name: str) -> None:
    """S211: code that the function reaches is as good as its own, also behind an argument."""
    f = READERS[name]
    through = lambda g, x: g(x)  # noqa: E731
    compiled, given = polyop.compile(f), polyop.compile(through)
    for k in (1.0, 2.0, 3.0, 2.0):
        set_global(k)
        assert compiled(X).tolist() == given(f, X).tolist() == f(X).tolist()


def _closure() -> tuple[Any, Change]:
    k = 1.0

    def change(v: float) -> None:
        nonlocal k
        k = v

    return lambda x: x * k, change


def _default() -> tuple[Any, Change]:
    def f(x: Any, k: float = 1.0) -> Any:
        return x * k

    return f, lambda v: setattr(f, "__defaults__", (v,))


def _kwdefault() -> tuple[Any, Change]:
    def f(x: Any, *, k: float = 1.0) -> Any:
        return x * k

    return f, lambda v: setattr(f, "__kwdefaults__", {"k": v})


def _code() -> tuple[Any, Change]:
    def f(x: Any) -> Any:
        return x * 1.0

    codes = {1.0: f.__code__, 2.0: (lambda x: x * 2.0).__code__, 3.0: (lambda x: x * 3.0).__code__}
    return f, lambda v: setattr(f, "__code__", codes[v])


def _function_attribute() -> tuple[Any, Change]:
    def f(x: Any) -> Any:
        return x * f.k  # type: ignore[attr-defined]

    return f, lambda v: setattr(f, "k", v)


def _keywords() -> tuple[Any, Change]:
    f = functools.partial(lambda x, k: x * k, k=1.0)
    return f, lambda v: f.keywords.update(k=v)


def _method() -> tuple[Any, Change]:
    net = type("Replaced", (), {"scale": lambda self: 1.0})()
    return lambda x: x * net.scale(), lambda v: setattr(type(net), "scale", lambda self: v)


def _new_override() -> tuple[Any, Change]:
    base = type("Base", (), {"scale": lambda self: 1.0})
    net = type("Derived", (base,), {})()
    return lambda x: x * net.scale(), lambda v: setattr(type(net), "scale", lambda self: v)


def _class() -> tuple[Any, Change]:
    kinds = {k: type("Kind", (), {"k": property(lambda self, k=k: k)}) for k in (1.0, 2.0, 3.0)}
    held = kinds[1.0]()
    return lambda x: x * held.k, lambda v: setattr(held, "__class__", kinds[v])


def _object_in_class() -> tuple[Any, Change]:
    inner = types.SimpleNamespace(k=1.0)
    kind = type("Holder", (), {"inner": inner})
    return lambda x: x * kind.inner.k, lambda v: setattr(inner, "k", v)  # type: ignore[attr-defined]


def _metaclass() -> tuple[Any, Change]:
    meta = type("Meta", (type,), {"k": 1.0})
    kind = meta("Made", (), {})
    return lambda x: x * kind.k, lambda v: setattr(meta, "k", v)


def _deep() -> tuple[Any, Change]:
    top = bottom = types.SimpleNamespace()
    for _ in range(7):
        bottom.inner = types.SimpleNamespace()
        bottom = bottom.inner

    def f(x: Any) -> Any:
        return x * top.inner.inner.inner.inner.inner.inner.inner.k

    return f, lambda v: setattr(bottom, "k", v)


def _module() -> tuple[Any, Change]:
    outer, inner = types.ModuleType("outer"), types.ModuleType("inner")
    outer.inner = inner  # type: ignore[attr-defined]
    return lambda x: x * outer.inner.k, lambda v: setattr(inner, "k", v)


def _imported() -> tuple[Any, Change]:
    made = sys.modules["test_surroundings_inner"] = types.ModuleType("test_surroundings_inner")

    def f(x: Any) -> Any:
        from test_surroundings_inner import k  # noqa: PLC0415

        return x * k

    return f, lambda v: setattr(made, "k", v)


def _context() -> tuple[Any, Change]:
    k: contextvars.ContextVar[float] = contextvars.ContextVar("k")
    return lambda x: x * k.get(), k.set


def _weak() -> tuple[Any, Change]:
    held = Net()
    found = weakref.ref(held)
    return lambda x: x * found().k, lambda v: setattr(held, "k", v)  # type: ignore[union-attr]


def _of(held: Any, key: Any) -> tuple[Any, Change]:
    return lambda x: x * float(held[key]), lambda v: held.__setitem__(key, v)


class Words(dict[str, float]):
    def __getattr__(self, name: str) -> float:
        return self[name]


def _words() -> tuple[Any, Change]:
    held = Words(k=1.0)
    return lambda x: x * held.k, lambda v: held.__setitem__("k", v)


PLACES: dict[str, Any] = {
    "closure": _closure,
    "default": _default,
    "default by keyword": _kwdefault,
    "code": _code,
    "function attribute": _function_attribute,
    "keywords of a partial": _keywords,
    "replaced method": _method,
    "new override": _new_override,
    "replaced class": _class,
    "object in a class": _object_in_class,
    "metaclass": _metaclass,
    "deep": _deep,
    "module in a module": _module,
    "imported": _imported,
    "context variable": _context,
    "weak reference": _weak,
    "dict with attributes": _words,
    "OrderedDict": lambda: _of(collections.OrderedDict(), "k"),
    "defaultdict": lambda: _of(collections.defaultdict(float), "k"),
    "Counter": lambda: _of(collections.Counter(), "k"),
    "UserDict": lambda: _of(collections.UserDict(), "k"),
    "deque": lambda: _of(collections.deque([0.0]), 0),
    "subclass of list": lambda: _of(type("Own", (list,), {})([0.0]), 0),
    "long list": lambda: _of([0.0] * 200, 150),
    "too long a list": lambda: _of([0.0] * 20_000, 15_000),
    "array": lambda: _of(array.array("d", [0.0]), 0),
    "NumPy's array": lambda: _of(np.zeros(2), 1),
    "array without axes": lambda: _of(np.zeros(()), ()),
    "big array": lambda: _of(np.zeros(1 << 18), 1),
    "memoryview": lambda: _of(memoryview(array.array("d", [0.0])), 0),
}


@pytest.mark.parametrize("place", PLACES)
def test_places_that_values_are_kept_in(place: str) -> None:
    """S211: a value counts as read wherever it is; where no look is possible, nothing is frozen."""
    for whole in (False, True):
        f, change = PLACES[place]()
        compiled = polyop.compile(f, fullgraph=whole)
        for k in (1.0, 2.0, 3.0, 2.0):
            change(k)
            try:
                assert compiled(X).tolist() == f(X).tolist() == (X * k).tolist()
            except CaptureError as error:
                assert whole and "cannot be looked at" in str(error)


@pytest.mark.parametrize(
    "make",
    [lambda: {1.0}, lambda: bytearray(b"\1"), lambda: array.array("d", [1.0])],
    ids=["set", "bytearray", "array"],
)
def test_arguments_that_change_in_place(make: Any) -> None:
    """S211: what an argument holds counts, not that it is the same one."""
    held = make()
    compiled = polyop.compile(lambda s, x: x * float(max(s)), fullgraph=True)
    for k in (1, 2, 3):
        if k > 1:
            (held.add if isinstance(held, set) else held.append)(k)
        assert compiled(held, X).tolist() == (X * k).tolist()


def test_what_shows_no_state() -> None:
    """S211, S212: a function that draws from Python's generators, or an iterator, runs as it is."""
    count, draws = iter(range(1, 100)), random.Random(3)
    expected = random.Random(3)
    compiled = polyop.compile(lambda x: x * next(count) + draws.random())
    for i in range(1, 4):
        assert compiled(X).tolist() == (X * i + expected.random()).tolist()
    with pytest.raises(CaptureError, match="cannot be looked at"):
        polyop.compile(lambda x: x * next(count), fullgraph=True)(X)


def test_arrays_of_other_libraries() -> None:
    """S211: what is in a tensor of PyTorch's may change, and nobody is told."""
    held = pytest.importorskip("torch").ones(1)
    compiled = polyop.compile(lambda x: x * float(held[0]))
    for k in (1.0, 2.0):
        held.fill_(k)
        assert compiled(X).tolist() == (X * k).tolist()


def test_libraries_are_not_walked() -> None:
    """S211: naming NumPy and its like costs a handful of looks, whatever they keep."""
    compiled = polyop.compile(lambda x: x * np.pi + np.float32(2) * np.sqrt(4.0), fullgraph=True)
    compiled(X)
    [[program]] = compiled.programs.values()
    assert len(program.origin.reads) < 10
