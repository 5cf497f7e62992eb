"""Classes of objects that saved programs hold or take; known only once this module is imported."""

from __future__ import annotations

from typing import Any

import polyop
from polyop import Tensor
from polyop.library import MemberType, register_fake_class, register_opaque_type


class Shelf:
    """Holds tensors by name, and counts what is put on it."""

    def __init__(self, items: Any = (), count: int = 0, other: Any = None) -> None:
        self.items = dict(items)
        self.count = count
        self.other = other

    def put(self, name: str, x: Tensor) -> None:
        self.items[name] = x
        self.count += 1

    def take(self, name: str) -> Tensor:
        return self.items[name]

    def how_many(self) -> int:
        return self.count

    def __obj_flatten__(self) -> tuple[tuple[str, Any], ...]:
        return ("items", dict(self.items)), ("count", self.count), ("other", self.other)

    @classmethod
    def __obj_unflatten__(cls, flat: Any) -> Shelf:
        return cls(**dict(flat))


class Notes:
    """Keeps what it is told; it has no fake class."""

    def __init__(self, lines: Any = (), scale: float = 1.0) -> None:
        self.lines = list(lines)
        self.scale = scale

    def __obj_flatten__(self) -> tuple[tuple[str, Any], ...]:
        return ("lines", list(self.lines)), ("scale", self.scale)

    @classmethod
    def __obj_unflatten__(cls, flat: Any) -> Notes:
        return cls(**dict(flat))


class Bare:
    """Has no flat form."""


class Once:
    """Has a flat form, and nothing makes it again."""

    def __obj_flatten__(self) -> tuple[tuple[str, Any], ...]:
        return ()


class Unread(Notes):
    """Of a registered class, and itself not registered."""


for _cls in (Shelf, Bare, Once):
    register_opaque_type(_cls, typ="reference")
register_opaque_type(Notes, typ="reference", members={"scale": MemberType.USE_REAL})


@register_fake_class(Shelf)
class FakeShelf(Shelf):
    pass


@polyop.custom_op("t_export_objects::tell", mutates_args=())
def tell(notes: Notes, x: Tensor, text: str) -> Tensor:
    notes.lines.append(text)
    return x * notes.scale


@polyop.custom_op("t_export_objects::tell_bare", mutates_args=())
def tell_bare(bare: Bare, x: Tensor) -> Tensor:
    return x * 2


@polyop.custom_op("t_export_objects::tell_once", mutates_args=())
def tell_once(once: Once, x: Tensor) -> Tensor:
    return x * 2


@polyop.custom_op("t_export_objects::weigh", mutates_args=())
def weigh(notes: Notes, x: Tensor) -> Tensor:
    return x * notes.scale


weigh.register_effect(None)


@polyop.custom_op("t_export_objects::put", mutates_args=())
def put(shelf: Shelf, name: str, x: Tensor) -> None:
    shelf.put(name, x.clone())


@put.register_fake
def _(shelf, name, x):
    shelf.put(name, x)


@polyop.custom_op("t_export_objects::take", mutates_args=())
def take(shelf: Shelf, name: str) -> Tensor:
    return shelf.take(name).clone()


@take.register_fake
def _(shelf, name):
    return shelf.take(name)


for _op in (tell, tell_bare, tell_once, weigh):
    _op.register_fake(lambda obj, x, *rest: x.new_empty(x.shape))


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.notes, ctx.text = inputs[0], inputs[2]


def _tell_back(ctx: Any, grad: Tensor) -> Any:
    return None, tell(ctx.notes, grad, f"back {ctx.text}"), None


tell.register_autograd(_tell_back, setup_context=_keep)
