"""What classes, modules and objects come to have is seen, also what a base had before (S211)."""

from __future__ import annotations

import abc
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop.errors import CaptureError

X = polyop.tensor([1.0, 2.0])
Case = tuple[Callable[..., Any], list[Callable[[], Any]]]


class Five:
    """A descriptor of the user's."""

    def __get__(self, owner: Any, kind: Any = None) -> float:
        return 5.0


def _kinds() -> tuple[Any, Any]:
    base = type("Base", (), {"k": 2.0, "m": lambda self, x: x * 2, "__scale__": 2.0})
    return base, type("Derived", (base,), {})


def _data() -> Case:
    _, kind = _kinds()
    held = kind()
    changes = [functools.partial(setattr, kind, "k", v) for v in (5.0, 7.0)]
    return lambda x: x * held.k, [*changes, lambda: delattr(kind, "k")]


def _property() -> Case:
    _, kind = _kinds()
    held = kind()
    return lambda x: x * held.k, [lambda: setattr(kind, "k", property(lambda self: 5.0))]


def _descriptor() -> Case:
    base, _ = _kinds()
    held = base()
    return lambda x: x * held.k, [lambda: setattr(base, "k", Five())]


def _method() -> Case:
    _, kind = _kinds()
    held = kind()
    changes = [lambda: setattr(kind, "m", lambda self, x: x * 5), lambda: delattr(kind, "m")]
    return lambda x: held.m(x), changes


def _called() -> Case:
    base, kind = _kinds()
    base.__call__ = base.m
    held = kind()
    return lambda x: held(x), [lambda: setattr(kind, "__call__", lambda self, x: x * 5)]


def _of_class() -> Case:
    _, kind = _kinds()
    made = classmethod(lambda cls, x: x * 5)
    return lambda x: kind.m(None, x), [
        lambda: setattr(kind, "m", lambda self, x: made.__func__(0, x))
    ]


def _super() -> Case:
    class Top:
        def m(self) -> float:
            return 2.0

    class Middle(Top):
        pass

    class Bottom(Middle):
        def m(self) -> float:
            return super().m() + 1

    held = Bottom()
    return lambda x: x * held.m(), [lambda: setattr(Middle, "m", lambda self: 7.0)]


def _bases() -> Case:
    base, _ = _kinds()
    other = type("Other", (), {"m": lambda self, x: x * 9})
    plain = type("Plain", (), {})
    kind = type("Kind", (base, plain), {})
    held = kind()
    return lambda x: held.m(x), [lambda: setattr(kind, "__bases__", (other, plain))]


def _slots() -> Case:
    base = type("Base", (), {"__slots__": (), "k": 2.0})
    kind = type("Slotted", (base,), {"__slots__": ("own",)})
    held: Any = kind()
    changes = [
        lambda: setattr(kind, "k", 5.0),
        lambda: setattr(held, "own", 3.0),
        lambda: delattr(held, "own"),
    ]
    return lambda x: x * held.k * getattr(held, "own", 1.0), changes


def _metaclass() -> Case:
    meta = type("Meta", (type,), {"__getattr__": lambda cls, name: 2.0})
    kind: Any = meta("Made", (), {})
    return lambda x: x * kind.q, [lambda: setattr(kind, "q", 7.0)]


def _special_name() -> Case:
    base, kind = _kinds()
    held = kind()
    changes = [functools.partial(setattr, base, "__scale__", v) for v in (5.0, 7.0)]
    return lambda x: x * held.__scale__ * base.__scale__, changes


def _without_a_module_name() -> Case:
    space: dict[str, Any] = {}
    exec("class A:\n    k = 2.0", space)
    kind = space["A"]
    return lambda x: x * kind.k, [lambda: setattr(kind, "k", 5.0)]


def _class_of_slots() -> Case:
    one, two = (type("One", (), {"__slots__": (), "k": k}) for k in (2.0, 3.0))
    held = one()
    return lambda x: x * held.k, [lambda: setattr(held, "__class__", two)]


def _new_dict() -> Case:
    held: Any = types.SimpleNamespace()
    kind = type("Kind", (), {})
    held = kind()
    held.k = 2.0
    return lambda x: x * held.k, [lambda: setattr(held, "__dict__", {"k": 5.0})]


def _derived() -> Case:
    base = type("Base", (), {})
    kept = [type("First", (base,), {"k": 2.0})]

    def f(x: Any) -> Any:
        for kind in base.__subclasses__():
            x = x * kind.k
        return x

    return f, [lambda: kept.append(type("Second", (base,), {"k": 3.0}))]


def _registered() -> Case:
    class Base(abc.ABC):  # noqa: B024
        pass

    kind = type("Kind", (), {})
    held = kind()
    changes = [lambda: Base.register(kind)]
    return lambda x: x * (2.0 if isinstance(held, Base) else 3.0), changes


CASES: dict[str, Callable[[], Case]] = {
    "data": _data,
    "property": _property,
    "descriptor": _descriptor,
    "method": _method,
    "call": _called,
    "function of a class": _of_class,
    "class in the middle": _super,
    "bases": _bases,
    "slots": _slots,
    "metaclass": _metaclass,
    "special name": _special_name,
    "class without a module": _without_a_module_name,
    "class of slots": _class_of_slots,
    "another dict": _new_dict,
    "derived classes": _derived,
    "registered classes": _registered,
}


def _agree(make: Callable[[], Case], whole: bool = True) -> None:
    f, changes = make()
    compiled = polyop.compile(f, fullgraph=whole)
    for change in [lambda: None, *changes]:
        change()
        assert compiled(X).tolist() == compiled(X).tolist() == f(X).tolist()


@pytest.mark.parametrize("name", CASES)
def test_what_a_class_gets_later(name: str) -> None:
    """S211: what hides what a base has, or is there anew, is what the eager function meets."""
    _agree(CASES[name])


def _attribute() -> Case:
    kind: Any = type("Kind", (), {})
    held = kind()
    changes = [
        lambda: setattr(kind, "q", 1),
        lambda: delattr(kind, "q"),
        lambda: setattr(held, "q", 1),
    ]
    return lambda x: x * (2.0 if hasattr(held, "q") else 3.0), changes


def _attribute_of_a_class() -> Case:
    kind = type("Kind", (), {})
    changes = [lambda: setattr(kind, "q", lambda self: 1)]
    return lambda x: x * (2.0 if hasattr(kind, "q") else 3.0), changes


def _attribute_of_a_module() -> Case:
    module = types.ModuleType("a_module")
    changes = [lambda: setattr(module, "q", 1), lambda: delattr(module, "q")]
    return lambda x: x * (2.0 if hasattr(module, "q") else 3.0), changes


def _property_of_a_module() -> Case:
    kind = type("Kind", (types.ModuleType,), {"scale": property(lambda self: self._s)})
    module: Any = kind("a_module")
    module._s = 2.0
    return lambda x: x * module.scale, [lambda: setattr(module, "_s", 5.0)]


def _made_by_a_module() -> Case:
    module = types.ModuleType("a_module")
    exec("D = {'k': 2.0}\ndef __getattr__(name): return D[name]", vars(module))
    return lambda x: x * module.k, [lambda: module.D.update(k=5.0)]


def _replaced_module() -> Case:
    def put(k: float) -> None:
        module = types.ModuleType("test_watched_module")
        vars(module)["k"] = k
        sys.modules["test_watched_module"] = module

    def f(x: Any) -> Any:
        import test_watched_module  # noqa: PLC0415

        return x * test_watched_module.k

    put(2.0)
    return f, [lambda: put(5.0)]


ABSENT: dict[str, Callable[[], Case]] = {
    "attribute": _attribute,
    "of a class": _attribute_of_a_class,
    "of a module": _attribute_of_a_module,
    "property of a module": _property_of_a_module,
    "made by a module": _made_by_a_module,
    "replaced module": _replaced_module,
}


@pytest.mark.parametrize("name", ABSENT)
def test_what_is_not_there_yet(name: str) -> None:
    """S211: that a name is missing is an answer too, and holds until it is there."""
    _agree(ABSENT[name])


class Bound:
    """Its members are made anew each time that they are asked for."""

    def scaled(self, x: Any, k: float) -> Any:
        return x * k

    thrice = functools.partialmethod(scaled, k=3.0)

    @functools.singledispatchmethod
    def of(self, x: Any) -> Any:
        return x * 2.0

    @classmethod
    @property
    def listed(cls) -> list[float]:  # type: ignore[misc]
        return [2.0]


def test_members_that_are_bound_afresh() -> None:
    """S212: what a descriptor gives anew is no change that the function makes."""
    held = Bound()
    for f in (lambda x: held.thrice(x), lambda x: x * held.listed[0]):
        assert polyop.compile(f, fullgraph=True)(X).tolist() == f(X).tolist()


def test_an_attribute_with_the_name_of_a_module() -> None:
    """S212: who has an attribute `random` draws no numbers."""
    held = types.SimpleNamespace(random=2.0, time=3.0)
    compiled = polyop.compile(lambda x: x * held.random * held.time, fullgraph=True)
    assert compiled(X).tolist() == (X * 6.0).tolist()


def test_a_class_that_the_function_changes() -> None:
    """S211, S212: what it gives a class is put back, and the function runs as it is."""
    kind: Any = type("Kind", (), {"n": 0})

    def f(x: Any) -> Any:
        kind.n += 1
        kind.last = kind.n
        return x * kind.n

    compiled = polyop.compile(f)
    assert [compiled(X).tolist() for _ in range(2)] == [X.tolist(), (X * 2).tolist()]
    assert (kind.n, kind.last) == (2, 2)
    with pytest.raises(CaptureError, match="changes"):
        polyop.compile(f, fullgraph=True)(X)
    assert (kind.n, kind.last) == (2, 2)
