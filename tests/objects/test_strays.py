"""Objects that traced code reaches in ways which a capture does not follow (S183, S186)."""

from __future__ import annotations

import collections
import contextvars
import threading
import types
import weakref
from collections.abc import Callable
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import Any

import pytest
from tests.export.object_things import Bare, Shelf, take

import polyop
from polyop.errors import CaptureError, ObjectError
from polyop.export import export

X = polyop.tensor([1.0, 2.0])
Y = polyop.tensor([5.0, 7.0])


class Slotted:
    __slots__ = ("shelf",)

    def __init__(self, shelf: Any) -> None:
        self.shelf = shelf


Named = collections.namedtuple("Named", "shelf")  # noqa: PYI024


def by_slot(shelf: Any) -> Callable[[], Any]:
    held = Slotted(shelf)
    return lambda: held.shelf


def by_tuple(shelf: Any) -> Callable[[], Any]:
    held = (1, [shelf]), Named(shelf)
    return lambda: held[1].shelf


def by_deque(shelf: Any) -> Callable[[], Any]:
    held = collections.deque([shelf])
    return lambda: held[0]


def by_set(shelf: Any) -> Callable[[], Any]:
    held = {shelf}
    return lambda: next(iter(held))


def by_key_none(shelf: Any) -> Callable[[], Any]:
    held = types.MappingProxyType({None: shelf})
    return lambda: held[None]


def by_class(shelf: Any) -> Callable[[], Any]:
    held = type("Held", (), {"shelf": shelf})
    return lambda: held().shelf


def by_default(shelf: Any) -> Callable[[], Any]:
    def get(held: Any = shelf) -> Any:
        return held

    return get


def by_partial(shelf: Any) -> Callable[[], Any]:
    held = partial(lambda given: given, shelf)
    return lambda: held()


def by_method(shelf: Any) -> Callable[[], Any]:
    class Owner:
        def get(self) -> Any:
            return shelf

    held = Owner()
    return lambda: held.get()


def by_generator(shelf: Any) -> Callable[[], Any]:
    def forever(held: Any) -> Any:
        while True:
            yield held

    held = forever(shelf)
    return lambda: next(held)


def by_weak_reference(shelf: Any) -> Callable[[], Any]:
    held = weakref.ref(shelf)
    return lambda: held()


def by_context(shelf: Any) -> Callable[[], Any]:
    held: Any = contextvars.ContextVar("held")
    held.set(shelf)
    return lambda: held.get()


def by_cache(shelf: Any) -> Callable[[], Any]:
    held = lru_cache(lambda: shelf)
    held()
    return lambda: held()


def by_depth(shelf: Any) -> Callable[[], Any]:
    held = [[[[[[shelf]]]]]]
    return lambda: held[0][0][0][0][0][0]


WAYS = (
    by_slot, by_tuple, by_deque, by_set, by_key_none, by_class, by_default, by_partial, by_method,
    by_generator, by_weak_reference, by_context, by_cache, by_depth,
)  # fmt: skip


def acting(get: Callable[[], Any]) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        get().put("x", x * 2)
        return get().take("x") + 1

    return f


@pytest.mark.parametrize("way", WAYS)
def test_export_refuses_what_it_cannot_replace(way: Any) -> None:
    """S183, S186: an object that no fake stands for is refused where it is used, unchanged."""
    shelf = Shelf()
    with pytest.raises(CaptureError, match=r"reaches 'put' of a .*Shelf[\s\S]*pass the object"):
        export(acting(way(shelf)), (X,))
    assert not shelf.items and shelf.count == 0
    assert "__getattribute__" not in vars(Shelf) and vars(Shelf)["__init__"].__name__ == "__init__"


@pytest.mark.parametrize("way", WAYS)
def test_compile_runs_it_as_it_is(way: Any) -> None:
    """S165, S183: a function with such an object has its effects at each call, first and later."""
    shelf = Shelf()
    f = polyop.compile(acting(way(shelf)))
    for count, x in ((1, X), (2, X), (3, Y)):
        assert f(x).tolist() == (x * 2 + 1).tolist()
        assert shelf.items["x"].tolist() == (x * 2).tolist() and shelf.count == count
    with pytest.raises(
        CaptureError, match="reaches 'put'|changes 'attributes' outside|cannot be looked at"
    ):
        polyop.compile(acting(way(shelf)), fullgraph=True)(X)


def test_a_method_that_was_bound_before() -> None:
    """S186: the body of a method of the real object is refused, and attributes are not set."""
    shelf = Shelf()
    put, held = shelf.put, (shelf,)
    with pytest.raises(CaptureError, match="reaches 'items'"):
        export(lambda x: put("x", x), (X,))
    with pytest.raises(CaptureError, match="reaches 'count'"):
        export(lambda x: (setattr(held[0], "count", 7), x * 2)[1], (X,))
    assert not shelf.items and shelf.count == 0


def test_operators_take_such_objects() -> None:
    """S183: what only operators use needs no name: it is a constant of the program."""
    shelf = Shelf({"x": X})
    held = (shelf,)
    program = export(lambda x: take(held[0], "x") * x, (X,)).module()
    assert program(Y).tolist() == [5, 14]


def test_objects_that_the_function_makes() -> None:
    """S165, S183: an object that is made in the function is Python's, as any other value."""

    def f(x: Any) -> Any:
        shelf, bare = Shelf(), Bare()
        shelf.put("x", x * 2)
        bare.scale = 3.0  # type: ignore[attr-defined]
        return shelf.take("x") * bare.scale  # type: ignore[attr-defined]

    assert export(f, (X,)).module()(Y).tolist() == [30, 42]
    compiled = polyop.compile(f, fullgraph=True)
    assert compiled(X).tolist() == [6, 12] and compiled(Y).tolist() == [30, 42]


def test_other_threads_notice_nothing() -> None:
    """S186: while one thread captures, another one uses objects of the class."""
    seen: SimpleQueue[Any] = SimpleQueue()  # a list would be one that the function changes

    def other() -> None:
        shelf = Shelf()
        shelf.put("x", X)
        seen.put(shelf.take("x").tolist())

    def f(x: Any) -> Any:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return x * 2

    assert export(f, (X,)).module()(Y).tolist() == [10, 14]
    assert not seen.empty()
    while not seen.empty():
        assert seen.get() == [1, 2]


def puts_directly(shelf: Any, x: Any) -> Any:
    shelf.items["y"] = x * 2
    return x + 1


def test_lists_and_dicts_of_an_object_are_not_changed_in_silence() -> None:
    """S183: a write into what an attribute holds is refused by `export`, and done if compiled."""
    shelf = Shelf({"x": X})
    with pytest.raises(ObjectError, match="what attribute 'items' of a .*Shelf holds"):
        export(puts_directly, (shelf, X))
    assert list(shelf.items) == ["x"]
    compiled = polyop.compile(puts_directly)
    for x in (X, Y):
        assert compiled(shelf, x).tolist() == (x + 1).tolist()
        assert shelf.items["y"].tolist() == (x * 2).tolist()
    with pytest.raises(CaptureError, match="cannot be captured as one graph"):
        polyop.compile(puts_directly, fullgraph=True)(Shelf({"x": X}), X)
