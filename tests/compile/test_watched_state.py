"""What changes and tells nobody is not frozen, by any name; what is weak stays so (S211)."""

from __future__ import annotations

import collections
import datetime
import functools
import gc
import itertools
import os
import random
import secrets
import threading
import time
import types
import uuid
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.errors import CaptureError

X = polyop.tensor([1.0, 2.0])


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _values() -> Any:
    held = {"c": itertools.count(1)}

    def f(x: Any) -> Any:
        for value in held.values():
            x = x * next(value)
        return x

    return f


def _attributes() -> Any:
    held = types.SimpleNamespace(c=itertools.count(1))
    return lambda x: x * next(next(iter(vars(held).values())))


def _computed_attribute() -> Any:
    held, name = types.SimpleNamespace(c=itertools.count(1)), "c"
    return lambda x: x * next(getattr(held, name))


def _computed_key() -> Any:
    held, mode = {"train": itertools.cycle([1.0, 2.0])}, "train"
    return lambda x: x * next(held[mode])


def _two_names() -> Any:
    first = types.SimpleNamespace(unused=itertools.count(1))
    second = [first.unused]
    return lambda x: x * next(second[0]) * (first is not second)


def _default() -> Any:
    def f(x: Any, held: Any = {"c": itertools.count(1)}) -> Any:  # noqa: B006
        return x * next(held["c"])

    return f


def _sent() -> Any:
    def numbers() -> Any:
        yield from range(1, 9)

    send = numbers().send
    return lambda x: x * send(None)


def _of(draw: Any) -> Any:
    return lambda x: x * float(draw())


def _from_random() -> Any:
    random.seed(0)
    shuffle = random.shuffle

    def f(x: Any) -> Any:
        order = list(range(5))
        shuffle(order)
        return x * order[0]

    return f


def _from_numpy() -> Any:
    np.random.seed(0)  # noqa: NPY002
    return _of(np.random.rand)  # noqa: NPY002


SILENT: dict[str, Callable[[], Any]] = {
    "method": lambda: _of(_rng().normal),
    "partial": lambda: _of(functools.partial(_rng().normal, 1.0)),
    "partial next": lambda: _of(functools.partial(next, itertools.count(1))),
    "bound next": lambda: _of(itertools.count(1).__next__),
    "send": _sent,
    "values": _values,
    "attributes": _attributes,
    "computed attribute": _computed_attribute,
    "computed key": _computed_key,
    "two names": _two_names,
    "default": _default,
    "from random": _from_random,
    "from numpy.random": _from_numpy,
}


@pytest.mark.parametrize("name", SILENT)
def test_what_shows_no_state_by_any_name(name: str) -> None:
    """S211, S212: an iterator or a generator runs as it is, and one graph there is none."""
    plain = SILENT[name]()
    expected = [plain(X).tolist() for _ in range(3)]
    compiled = polyop.compile(SILENT[name]())
    assert [compiled(X).tolist() for _ in range(3)] == expected
    with pytest.raises(CaptureError, match="cannot be looked at"):
        polyop.compile(SILENT[name](), fullgraph=True)(X)


def test_arrays_in_objects_of_other_libraries() -> None:
    """S211: a tensor of PyTorch's is none to freeze as a method's, nor as a module's."""
    torch = pytest.importorskip("torch")
    held, module = torch.ones(1), torch.nn.Linear(1, 1)
    item = held.item
    compiled = [
        polyop.compile(lambda x: x * item()),
        polyop.compile(lambda x: x * float(module(torch.ones(1)).detach()[0])),
    ]
    for k in (1.0, 2.0):
        held.fill_(k)
        torch.nn.init.constant_(module.weight, k)
        torch.nn.init.zeros_(module.bias)
        assert [f(X).tolist() for f in compiled] == [(X * k).tolist()] * 2


def test_what_code_does_not_name_may_be_there() -> None:
    """S212: an iterator that an object has beside what the function uses is in nobody's way."""
    held = types.SimpleNamespace(rows=itertools.count(), k=3.0)
    compiled = polyop.compile(lambda x: x * getattr(held, "k", 1.0), fullgraph=True)
    assert compiled(X).tolist() == (X * 3.0).tolist()

    class Net:
        def __init__(self) -> None:
            self.rows, self.k = itertools.count(), 3.0

        def __call__(self, x: Any) -> Any:
            return x * self.k

    assert polyop.compile(Net(), fullgraph=True)(X).tolist() == (X * 3.0).tolist()


@pytest.mark.parametrize("kind", [threading.local, type("Own", (threading.local,), {"k": 2.0})])
def test_what_each_thread_has(kind: Any) -> None:
    """S211: a program holds for the thread that it was captured in, as far as the values do."""
    held = kind()
    held.k = 2.0
    compiled = polyop.compile(lambda x: x * held.k, fullgraph=True)
    found = [compiled(X).tolist()]

    def other() -> None:
        held.k = 7.0
        found.append(compiled(X).tolist())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    held.k = 3.0
    found.append(compiled(X).tolist())
    assert found == [(X * k).tolist() for k in (2.0, 7.0, 3.0)]


class Owner:
    """What may be referred to weakly."""


def _reference(owner: Any) -> Any:
    found = weakref.ref(owner)
    return lambda x: x * (2.0 if found() is not None else 9.0)


def _proxy(owner: Any) -> Any:
    owner.k = 2.0
    found = weakref.proxy(owner)

    def f(x: Any) -> Any:
        try:
            return x * found.k
        except ReferenceError:
            return x * 9.0

    return f


def _many(make: Any) -> Any:
    def of(owner: Any) -> Any:
        found = make(owner)
        return lambda x: x * len(found)

    return of


WEAK: dict[str, Any] = {
    "reference": _reference,
    "proxy": _proxy,
    "set": _many(lambda owner: weakref.WeakSet([owner])),
    "values": _many(lambda owner: weakref.WeakValueDictionary(k=owner)),
    "keys": _many(lambda owner: weakref.WeakKeyDictionary({owner: 1.0})),
}


@pytest.mark.parametrize("name", WEAK)
def test_what_is_weak_may_go(name: str) -> None:
    """S211: a program keeps nothing alive that the function asks for."""
    owner = Owner()
    f = WEAK[name](owner)
    compiled = polyop.compile(f)
    assert compiled(X).tolist() == f(X).tolist()
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
    assert compiled(X).tolist() == f(X).tolist()


def test_the_default_of_a_context_variable() -> None:
    """S211: what a variable has for want of a value changes in place, too."""
    held = [2.0]
    variable: ContextVar[list[float]] = ContextVar("variable", default=held)  # noqa: B039
    compiled = polyop.compile(lambda x: x * variable.get()[0], fullgraph=True)
    for k in (2.0, 5.0):
        held[0] = k
        assert compiled(X).tolist() == (X * k).tolist()


@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
def test_views_of_dicts(kind: Any) -> None:
    """S211: a view shows what its dict has by now."""
    held = kind(a=2.0)
    keys, values, items = held.keys(), held.values(), held.items()

    def f(x: Any) -> Any:
        return x * len(keys) * sum(values) + len(items)

    compiled = polyop.compile(f, fullgraph=True)
    for k in (2.0, 5.0):
        held[str(k)] = k
        assert compiled(X).tolist() == f(X).tolist()


def test_how_an_array_may_be_used() -> None:
    """S211: whether it can be written is a fact of an array, beside its data."""
    held = np.ones(2)
    compiled = polyop.compile(lambda x: x * (2.0 if held.flags.writeable else 3.0), fullgraph=True)
    for writeable in (True, False, True):
        held.flags.writeable = writeable
        assert compiled(X).tolist() == (X * (2.0 if writeable else 3.0)).tolist()


def test_an_import_inside(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """S211: what is imported for the first time in a capture stays where it is."""
    folder = tmp_path / "watched_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "inner.py").write_text("k = 2.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    import watched_package  # noqa: PLC0415

    def f(x: Any) -> Any:
        import watched_package.inner  # noqa: PLC0415

        return x * watched_package.inner.k

    compiled = polyop.compile(f)
    for k in (2.0, 5.0):
        if k > 2.0:
            watched_package.inner.k = k
        assert compiled(X).tolist() == (X * k).tolist()


def test_what_is_told_anew_each_time() -> None:
    """S211, S212: a clock and a draw of the system's are asked at each call."""
    tick, now = time.perf_counter_ns, datetime.datetime
    asked: list[Callable[[], Any]] = [
        lambda: time.perf_counter_ns(),
        lambda: tick(),
        lambda: now.now().timestamp(),
        lambda: datetime.datetime.now().timestamp(),  # noqa: DTZ005
        lambda: uuid.uuid4().int,
        lambda: os.urandom(8)[0],
        lambda: secrets.token_bytes(1)[0],
    ]
    for ask in asked:

        def f(x: Any, ask: Any = ask) -> Any:
            return x * (ask() > 0)

        compiled = polyop.compile(f)
        compiled(X)
        assert not compiled.programs
        with pytest.raises(CaptureError, match="cannot be looked at"):
            polyop.compile(f, fullgraph=True)(X)


def test_a_date_is_no_clock() -> None:
    """S212: who computes with dates has one graph."""
    day = datetime.date(2020, 1, 1)
    compiled = polyop.compile(
        lambda x: x * (day - datetime.date(2019, 12, 30)).days, fullgraph=True
    )
    assert compiled(X).tolist() == (X * 2.0).tolist()


def test_memory_that_is_written_as_a_tensor_and_read_as_an_array() -> None:
    """S211, S212: the array is read after the write, as the eager function does."""

    def made() -> Any:
        held = np.arange(2.0)
        tensor = polyop.from_numpy(held)

        def f(x: Any) -> Any:
            tensor.add_(1.0)
            return x * float(held[0])

        return f

    plain, compiled = made(), polyop.compile(made())
    for _ in range(3):
        assert compiled(X).tolist() == plain(X).tolist()
