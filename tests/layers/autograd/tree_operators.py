"""Operators with dicts and records of tensors, each with its true gradient or one that is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np

import polyop
from polyop import Tensor
from polyop.layers.autograd import forward
from polyop.library import custom_op


@dataclass
class Layer:
    weight: Tensor
    bias: Tensor | None
    scale: float = 1.0


@dataclass
class Deep(Layer):
    more: Tensor | None = None


class Pair(NamedTuple):
    count: int
    first: Tensor
    second: Tensor | None = None


class Twins(Pair):
    """A class of its own, with the same fields."""


class Named(TypedDict):
    weight: Tensor
    times: int


class Other(NamedTuple):
    weight: Any
    bias: Any


def tensor(array: Any) -> Tensor:
    return polyop.from_numpy(np.array(array))


def leaf(*values: float) -> Tensor:
    return tensor(values).requires_grad_()


def parts(value: Any) -> Iterator[Tensor]:
    """Give the tensors of some arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from parts([*value.values()])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from parts(item)
    elif is_dataclass(value):
        yield from parts([getattr(value, f.name) for f in fields(value)])


def total(*values: Any) -> Tensor:
    """Sum the squares of all tensors, each times its number."""
    if ANSWER:
        return ANSWER[-1]
    found = enumerate(parts(values), 1)
    return tensor(sum((n * t.numpy().astype(float) ** 2 for n, t in found), np.zeros(2)))


def of_dict(d: dict[str, Tensor]) -> Tensor:
    return total(d)


def of_layer(p: Layer) -> Tensor:
    return total(p)


def of_deep(p: Deep) -> Tensor:
    return total(p)


def of_pair(p: Pair) -> Tensor:
    return total(p)


def of_named(p: Named) -> Tensor:
    return total(p)


def of_perhaps(x: Tensor, p: Layer | None, d: dict[str, Tensor | None] | None) -> Tensor:
    return total(x, p, d)


def of_many(xs: list[Tensor], p: Pair, k: float, d: dict[str, Tensor], y: Tensor | None) -> Tensor:
    return total(xs, p, d, y)


def of_two(p: Layer, d: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return total(p), total(d)


KERNELS: dict[str, Callable[..., Any]] = {
    "dict": of_dict, "layer": of_layer, "deep": of_deep, "pair": of_pair, "named": of_named,
    "perhaps": of_perhaps, "many": of_many, "two": of_two,
}  # fmt: skip
#: What backward does, and what `setup_context` saw.
GIVEN: list[Callable[..., Any]] = []
SEEN: list[Any] = []
#: What kernels give, if not what they compute.
ANSWER: list[Tensor] = []


def keep(ctx: Any, inputs: Any, output: Any) -> None:
    SEEN.append(ctx.needs_input_grad)
    ctx.save_for_backward(*parts(inputs))
    ctx.inputs = inputs


def made(kind: str, setup: Any = keep) -> Any:
    """Define an operator."""
    op = custom_op(f"quicktrees::{kind}", KERNELS[kind], mutates_args=())
    op.register_autograd(lambda ctx, *g: GIVEN[-1](ctx, *g), setup_context=setup)
    return op


def made_long(kind: str, setup: Any = keep) -> Any:
    """Define the same operator, whose calls are recorded at length."""
    op = made(kind, setup)
    first, forward.quick_author = forward.quick_author, lambda found, kernel: None
    try:
        op(*values(kind, leaf(1.0, 2.0)))  # decides how
    finally:
        forward.quick_author = first
    SEEN.clear()
    return op


def values(kind: str, x: Tensor) -> tuple[Any, ...]:
    """Give arguments that fit."""
    layer, pair = Layer(x, None), Pair(3, x)
    return {
        "dict": ({"a": x},), "layer": (layer,), "deep": (Deep(x, None),), "pair": (pair,),
        "named": ({"weight": x, "times": 2},), "perhaps": (x, layer, {"a": None}),
        "many": ([x], pair, 2.0, {"a": x}, None), "two": (layer, {"a": x}),
    }[kind]  # fmt: skip


def right(ctx: Any, *g: Tensor) -> Any:
    """Give the true gradients, laid out as the arguments are."""
    n, found = 0, []
    assert len(ctx.saved_tensors) == len([*parts(ctx.inputs)])
    for i, value in enumerate(ctx.inputs):
        if len(g) == 2 and i == 1:
            n = 0
        laid, n = _mirrored(value, g[min(i, len(g) - 1)], n)
        found.append(laid)
    return tuple(found)


def _mirrored(value: Any, g: Tensor, n: int) -> tuple[Any, int]:
    if isinstance(value, Tensor):
        return g * value * (2.0 * (n + 1)), n + 1
    if value is None or isinstance(value, (int, float)):
        return None, n
    if isinstance(value, list):
        laid = []
        for item in value:
            one, n = _mirrored(item, g, n)
            laid.append(one)
        return laid, n
    if isinstance(value, dict):
        named = {}
        for key, item in value.items():
            named[key], n = _mirrored(item, g, n)
        return named, n
    names = value._fields if isinstance(value, tuple) else [f.name for f in fields(value)]
    named, n = _mirrored({name: getattr(value, name) for name in names}, g, n)
    numbers = {k: getattr(value, k) for k in named if isinstance(getattr(value, k), (int, float))}
    return type(value)(**(named | numbers)), n
