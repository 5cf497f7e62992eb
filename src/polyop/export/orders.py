"""Whether a function looks at the order of the keys in the dicts that it is given.

What it computes of one order may differ from what it computes of another, and
the graph does not say where it would. So the function is run twice more: on dicts
in the other order, and on dicts that note who goes through them, which are of a
class that the function may treat in another way. A program of one that is the same
each time, and never goes through a dict, takes its dicts by key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import optree

from polyop.tree.containers import NAMESPACE
from polyop.tree.same import key_orders


class Watching:
    """A function that gets its dicts as ones that note when their order is looked at.

    Attributes:
        looked: whether it was.
    """

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f
        self.looked = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        args = tuple(map(self._watched, args))
        kwargs = {name: self._watched(value) for name, value in kwargs.items()}
        # What a dict of another class, or in another container, is asked for is not noted.
        self.looked |= any(len(keys) > 1 for keys in key_orders([args, [*kwargs.values()]]))
        return self.f(*args, **kwargs)

    def _watched(self, value: Any) -> Any:
        if value.__class__ is list or value.__class__ is tuple:
            return value.__class__(map(self._watched, value))
        if value.__class__ is not dict:
            return value
        return watched(self, value, [self._watched(part) for part in value.values()])


class Turned:
    """A function that gets its dicts with their keys in the other order."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        given = {name: _turned(value) for name, value in kwargs.items()}
        return self.f(*map(_turned, args), **given)


def _turned(value: Any) -> Any:
    if value.__class__ is list or value.__class__ is tuple:
        return value.__class__(map(_turned, value))
    if value.__class__ is not dict:
        return value
    return {key: _turned(part) for key, part in reversed(value.items())}


class Watched(dict[Any, Any]):
    """A dict that notes when somebody looks at the order of its keys."""

    __slots__ = ("by",)
    by: Watching


def watched(by: Watching, keys: Iterable[Any], values: Iterable[Any]) -> Watched:
    """Make a dict that notes looks."""
    made = Watched(zip(keys, values, strict=True))
    made.by = by
    return made


def _noting(name: str) -> Callable[..., Any]:
    plain = getattr(dict, name)

    def method(self: Watched, *args: Any) -> Any:
        self.by.looked = True
        return plain(self, *args)

    method.__name__ = name
    return method


for _name in (
    "__iter__", "__reversed__", "__repr__", "__or__", "__ror__", "copy", "items", "keys",
    "popitem", "values",
):  # fmt: skip
    setattr(Watched, _name, _noting(_name))


def _by_key(keys: Iterable[Any]) -> list[Any]:
    """Give keys in the order in which trees have the values of a dict."""
    plain: Any = dict.fromkeys(keys, 0)
    return [*optree.tree_flatten_one_level(plain)[2]]


def _apart(given: Any) -> tuple[list[Any], Any, list[Any]]:
    keys = [*dict.__iter__(given)]
    by_key = _by_key(keys)
    return [given[key] for key in by_key], (given.by, tuple(keys)), by_key


def _together(form: Any, values: Iterable[Any]) -> Watched:
    by, keys = form
    known = dict(zip(_by_key(keys), values, strict=True))
    return watched(by, keys, [known[key] for key in keys])


optree.register_pytree_node(Watched, _apart, _together, namespace=NAMESPACE)
