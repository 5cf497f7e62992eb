"""Methods of `Tensor` whose operators are defined when they are first used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyop.lazy import load
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


class LateMethod:
    """Stands for a method, until it is first asked for; then the real one takes its place."""

    __slots__ = ("make", "name", "place")

    def __init__(self, name: str, place: str, make: Fn) -> None:
        self.name = name
        self.place = place
        self.make = make

    def __get__(self, tensor: Any, owner: type) -> Any:
        method = self.make(load(self.place))
        setattr(Tensor, self.name, method)
        # Not asked for by name again: a subclass may have its own, and call this one.
        return method if tensor is None else method.__get__(tensor, owner)
