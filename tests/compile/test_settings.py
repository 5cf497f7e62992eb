"""Variables of the process and weak references are read once, and guarded (S211)."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from os import environ, getenv
from typing import Any

import pytest

import polyop

X = polyop.tensor([1.0, 2.0])
NAME = "POLYOP_WATCHED"


def count(f: Any) -> int:
    return sum(map(len, f.programs.values()))


NAMED: list[Callable[[Any], Any]] = [
    lambda x: x * float(os.environ["POLYOP_WATCHED"]),
    lambda x: x * float(os.environ.get("POLYOP_WATCHED", "1")),
    lambda x: x * float(environ["POLYOP_WATCHED"]),
    lambda x: x * float(os.getenv("POLYOP_WATCHED", "1")),
    lambda x: x * float(getenv("POLYOP_WATCHED") or "1"),
]
COMPUTED: list[Callable[[Any], Any]] = [
    lambda x: x * float(os.environ[NAME]),
    lambda x: x * float(os.getenv("POLYOP_" + NAME[7:], "1")),
    lambda x: x * float(os.getenv(default="POLYOP_WATCHER", key="POLYOP_WATCHED")),
    lambda x: x * float(dict(os.environ)["POLYOP_WATCHED"]),
    lambda x, asked=os.environ: x * float(asked["POLYOP_WATCHED"]),
    lambda x: x * float(list(map(os.getenv, ["POLYOP_WATCHED"]))[0] or "1"),
    lambda x: x * float(os.getenvb(NAME.encode()) or b"1"),
    lambda x: x * len([k for k in os.environ if k.startswith("POLYOP_WATCHE")]),
]


@pytest.mark.parametrize("fn", [*NAMED, *COMPUTED])
def test_variables_of_the_process(fn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """S211: a variable that changes, by whatever name, is captured anew."""
    compiled = polyop.compile(fn, fullgraph=True)
    for k in ("2", "5", "2"):
        monkeypatch.setenv("POLYOP_WATCHED", k)
        assert compiled(X).tolist() == compiled(X).tolist() == fn(X).tolist()
    assert count(compiled) <= 2


@pytest.mark.parametrize("fn", NAMED)
def test_other_variables_matter_to_nobody(fn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """S211: a program holds whatever variables there are that its function does not name."""
    compiled = polyop.compile(fn, fullgraph=True)
    monkeypatch.setenv("POLYOP_WATCHED", "2")
    for k in ("1", "2"):
        monkeypatch.setenv("POLYOP_NOT_WATCHED", k)
        compiled(X)
    assert count(compiled) == 1


def test_a_variable_that_the_function_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """S211, S212: each call sets it; one graph there is none."""
    monkeypatch.setenv("POLYOP_WATCHED", "1")

    def fn(x: Any) -> Any:
        os.environ["POLYOP_WATCHED"] = os.environ["POLYOP_WATCHED"] + "0"
        return x * float(os.environ["POLYOP_WATCHED"])

    compiled = polyop.compile(fn)
    assert [compiled(X).tolist()[0] for _ in range(3)] == [10.0, 100.0, 1000.0]


class Parent:
    k = 2.0


class Child:
    def __init__(self, parent: Any) -> None:
        self._parent = weakref.ref(parent)

    def __call__(self, x: Any) -> Any:
        parent = self._parent()
        return x * (9.0 if parent is None else parent.k)


def test_a_weak_reference_is_guarded_by_what_it_is_of() -> None:
    """S211: one graph while that lives, and as long as it is the same; another once it is gone."""
    parent, child = Parent(), Child(Parent)
    compiled = polyop.compile(lambda x: child(x), fullgraph=True)
    found = [compiled(X).tolist()]
    child._parent = weakref.ref(parent)
    found += [compiled(X).tolist(), compiled(X).tolist()]
    parent.k = 3.0
    found.append(compiled(X).tolist())
    gone = weakref.ref(parent)
    del parent
    gc.collect()
    assert gone() is None
    found += [compiled(X).tolist(), compiled(X).tolist()]
    assert found == [(X * k).tolist() for k in (2.0, 2.0, 2.0, 3.0, 9.0, 9.0)]


def test_a_reference_of_a_class_of_its_own() -> None:
    """S212: what a method's weak reference gives is asked at each call."""
    parent = Parent()
    parent.scale = weakref.WeakMethod(Child(parent).__call__)  # type: ignore[attr-defined]
    compiled = polyop.compile(lambda x: x * (parent.scale() is None))  # type: ignore[attr-defined]
    assert compiled(X).tolist() == X.tolist()
    assert not compiled.programs
