"""Objects with a state, and operators that use them: a log, a queue, a random stream."""

from __future__ import annotations

from typing import Any

import numpy as np

import polyop
from polyop.library import MemberType, register_fake_class, register_opaque_type


class Log:
    """Notes what it is given; it has no fake class."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, float]] = []

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.lines]


class Queue:
    """Holds tensors; it has a fake class."""

    def __init__(self, items: Any = ()) -> None:
        self.items = list(items)

    def push(self, x: polyop.Tensor) -> None:
        self.items.append(x)

    def pop(self) -> polyop.Tensor:
        return self.items.pop(0)

    def size(self) -> int:
        return len(self.items)

    def same(self) -> Queue:
        return self

    def clone(self) -> Queue:
        return Queue(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __obj_flatten__(self) -> tuple[tuple[str, Any], ...]:
        return (("items", list(self.items)),)


class Stream:
    """Draws numbers; its scale is read in traces, and `twice` is traced through."""

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.scale = scale
        self.secret = 1

    def twice(self, x: polyop.Tensor) -> polyop.Tensor:
        return x * (2 * self.scale)


register_opaque_type(Log, typ="reference")
register_opaque_type(Queue, typ="reference")
register_opaque_type(
    Stream,
    typ="reference",
    members={"scale": MemberType.USE_REAL, "twice": MemberType.INLINED},
)


@register_fake_class(Queue)
class FakeQueue:
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    @classmethod
    def __obj_unflatten__(cls, flat: Any) -> FakeQueue:
        return cls(**dict(flat))

    def push(self, x: Any) -> None:
        self.items.append(x)

    def pop(self) -> Any:
        return self.items.pop(0)

    def size(self) -> int:
        return len(self.items)

    def same(self) -> FakeQueue:
        return self

    def clone(self) -> FakeQueue:
        return FakeQueue(list(self.items))

    def __len__(self) -> int:
        return len(self.items)


@polyop.custom_op("t_objects::note", mutates_args=())
def note(log: Log, x: polyop.Tensor, text: str) -> polyop.Tensor:
    log.lines.append((text, float(x.numpy().sum())))
    return x * 1


@note.register_fake
def _(log: Log, x: polyop.Tensor, text: str) -> polyop.Tensor:
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.log, ctx.text = inputs[0], inputs[2]


def _note_back(ctx: Any, grad: polyop.Tensor) -> Any:
    return None, note(ctx.log, grad, f"back {ctx.text}"), None


note.register_autograd(_note_back, setup_context=_keep)


@polyop.custom_op("t_objects::push", mutates_args=())
def push(queue: Queue, x: polyop.Tensor) -> None:
    queue.push(x.clone())


@push.register_fake
def _(queue: Queue, x: polyop.Tensor) -> None:
    queue.push(x)


@polyop.custom_op("t_objects::pop", mutates_args=())
def pop(queue: Queue) -> polyop.Tensor:
    return queue.pop()


@pop.register_fake
def _(queue: Queue) -> polyop.Tensor:
    return queue.pop()


@polyop.custom_op("t_objects::draw", mutates_args=())
def draw(stream: Stream, x: polyop.Tensor) -> tuple[polyop.Tensor, polyop.Tensor]:
    made = stream.rng.normal(size=x.shape).astype("float32") * stream.scale
    return polyop.from_numpy(made), polyop.from_numpy(made + x.numpy())


@draw.register_fake
def _(stream: Stream, x: polyop.Tensor) -> tuple[polyop.Tensor, polyop.Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


@polyop.custom_op("t_objects::make_queue", mutates_args=())
def make_queue(x: polyop.Tensor) -> Queue:
    return Queue([x.clone()])


@make_queue.register_fake
def _(x: polyop.Tensor) -> Queue:
    return Queue([x])


#: What an operator without objects did, in order.
WORLD: list[str] = []


@polyop.custom_op("t_objects::say", mutates_args=())
def say(x: polyop.Tensor, text: str) -> None:
    WORLD.append(text)


@say.register_fake
def _(x: polyop.Tensor, text: str) -> None:
    return None


say.register_effect(polyop.library.EffectType.ORDERED)
