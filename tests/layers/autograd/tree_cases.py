"""Calls with trees of tensors, drawn at random, and gradients that are laid out in all ways."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from random import Random
from typing import Any, NamedTuple

import numpy as np
from tests.layers.autograd.tree_operators import (
    GIVEN,
    SEEN,
    Deep,
    Layer,
    Other,
    Pair,
    Twins,
    right,
    tensor,
)

import polyop
from polyop import Tensor, autograd
from polyop.errors import PolyopError


class Change(NamedTuple):
    """How gradients differ from the true ones.

    Attributes:
        each: positions of arguments, and what is done to their gradients.
        whole: what is done to all.
    """

    each: Sequence[tuple[int, int]] = ()
    whole: int = 0


class Maker:
    """Makes the same call again.

    Args:
        kind: of the operator.
        seed: of what is drawn; None for the case that has all parts.
        change: of the gradients; None to draw one.
    """

    def __init__(self, kind: str, seed: int | None, change: Change | None = None) -> None:
        self.kind, self.seed, self.change = kind, seed, change
        self.random = Random(seed)
        self.leaves: list[Tensor] = []

    def number(self, end: int) -> int:
        """Give a number below an end."""
        return end - 1 if self.seed is None else self.random.randrange(end)

    def tensor(self) -> Tensor:
        """Make a tensor, or give one for the second time."""
        if self.leaves and self.number(5) == 0:
            return self.leaves[self.number(len(self.leaves))]
        dtype = np.float32 if self.number(6) == 1 else np.float64
        made = polyop.from_numpy(np.array([0.1, 1 / 3], dtype) + len(self.leaves))
        self.leaves.append(made.requires_grad_() if self.number(3) else made)
        return self.leaves[-1]

    def perhaps(self) -> Tensor | None:
        return None if self.number(3) == 0 else self.tensor()

    def layer(self) -> Layer:
        if self.number(8) == 1:
            return Deep(self.tensor(), self.perhaps(), 2.0, self.perhaps())
        return Layer(self.tensor(), self.perhaps(), 2.0)

    def pair(self) -> Pair:
        made = Twins if self.number(8) == 1 else Pair
        return made(2**40 if self.number(8) == 1 else 1, self.tensor(), self.perhaps())

    def dict(self, one: Callable[[], Any]) -> dict[str, Any]:
        found = {key: one() for key in "abd"[: self.number(4)]}
        return OrderedDict(found) if self.number(8) == 1 else found

    def args(self) -> tuple[Any, ...]:
        """Make arguments."""
        t = self.tensor
        return {
            "dict": lambda: (self.dict(t),),
            "layer": lambda: (self.layer(),),
            "deep": lambda: (Deep(t(), self.perhaps(), 1.0, self.perhaps()),),
            "pair": lambda: (self.pair(),),
            "named": lambda: ({"weight": t(), "times": 1},),
            "perhaps": lambda: (
                t(),
                self.layer() if self.number(3) else None,
                self.dict(self.perhaps) if self.number(3) else None,
            ),
            "many": lambda: ([t(), t()], self.pair(), 1.0, self.dict(t), self.perhaps()),
            "two": lambda: (self.layer(), self.dict(t)),
        }[self.kind]()

    def call(self) -> tuple[Any, ...]:
        """Make the arguments, and let the operator have its gradients."""
        self.random, self.leaves = Random(self.seed), []
        args, change = self.args(), self.change
        if change is None:
            each = [(self.number(len(args)), self.number(len(HOW))) for _ in range(self.number(3))]
            change = Change(each, 0 if self.number(4) else self.number(len(WHOLE)))
        GIVEN[:] = [lambda ctx, *g: changed(right(ctx, *g), change)]
        return args


def changed(grads: tuple[Any, ...], change: Change) -> Any:
    """Lay gradients out otherwise, or wrongly."""
    laid: Any = [*grads]
    for i, how in change.each:
        laid[i] = HOW[how](laid[i])
    return WHOLE[change.whole](tuple(laid))


def named(value: Any) -> Any:
    """Give a record as a dict."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    return vars(value).copy() if is_dataclass(value) else value


def with_items(**more: Any) -> Callable[[Any], Any]:
    """Add items to a dict."""
    return lambda value: named(value) | more if isinstance(named(value), dict) else value


def each(change: Callable[[Tensor], Any]) -> Callable[[Any], Any]:
    """Change all tensors of a container."""

    def run(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        if isinstance(value, dict):
            return {k: run(v) for k, v in value.items()}
        if isinstance(value, list):
            return [*map(run, value)]
        inner = named(value)
        return type(value)(**run(inner)) if isinstance(inner, dict) else value

    return run


def without(value: Any) -> Any:
    found = named(value)
    return dict([*found.items()][1:]) if isinstance(found, dict) else None


HOW: list[Callable[[Any], Any]] = [
    lambda value: None,
    named,
    without,
    each(lambda g: None),
    each(lambda g: g.astype(np.float32)),
    each(lambda g: g * 1.0j),
    each(lambda g: polyop.ones(3)),
    each(lambda g: tensor([1.0, 1.0, 1.0])),
    each(lambda g: g.numpy()),
    each(lambda g: 1.0),
    with_items(a=None),
    with_items(a=1.0),
    with_items(x=None),
    with_items(weight=None, times=None),
    with_items(times=tensor([1.0, 1.0])),
    with_items(scale=tensor([1.0, 1.0])),
    with_items(p=None),
    lambda value: OrderedDict(value) if isinstance(value, dict) else value,
    lambda value: Layer(*[*named(value).values()][:2]) if isinstance(value, Layer) else value,
    lambda value: Layer(1.0, tensor([1.0, 1.0]), tensor([1.0, 1.0])),
    lambda value: Pair(tensor([1.0, 1.0]), None),
    lambda value: Pair(None, None, "none"),
    lambda value: Other(None, None),
    lambda value: Other(tensor([1.0, 1.0]), 1.0),
    lambda value: [*named(value).values()] if isinstance(named(value), dict) else value,
    lambda value: tensor([1.0, 1.0]),
    lambda value: (value,),
    lambda value: (None,),
    lambda value: {"p": value},
    lambda value: {"d": tensor([1.0, 1.0])},
    lambda value: 3,
    lambda value: {},
]
WHOLE: list[Callable[[tuple[Any, ...]], Any]] = [
    lambda laid: laid[0] if len(laid) == 1 else laid,
    lambda laid: laid,
    lambda laid: list(laid),
    lambda laid: (laid,),
    lambda laid: laid[:-1],
    lambda laid: (*laid, None),
    lambda laid: None,
    lambda laid: dict(zip(["p", "d"], laid)),
    lambda laid: {"d": laid[0]},
    lambda laid: laid[-1],
]


def outcome(op: Any, maker: Maker, *, again: bool) -> tuple[list[Any], list[Any]]:
    """Call, go back, and tell all that a caller sees of it, and the second derivatives."""
    seconds: list[Any] = []
    SEEN.clear()
    told: list[Any] = []
    hooked: list[Any] = []
    out = op(*maker.call())
    outs = [*out] if isinstance(out, tuple) else [out]
    told += [[o.requires_grad for o in outs], [*SEEN]]
    if not any(o.requires_grad for o in outs):
        return told, seconds
    of_leaves = {id(t.grad_node): i for i, t in enumerate(maker.leaves) if t.requires_grad}
    node = outs[0].grad_node
    found = [of_leaves[id(n)] for n, _ in node.next_functions] if len(outs) == 1 else []
    told.append(found)
    if len(outs) == 1 and len(maker.leaves) > 2:
        node.register_hook(lambda *seen: hooked.append([[*map(_array, part)] for part in seen]))
    result = sum((o * o).sum() for o in outs)
    needing = [t for t in maker.leaves if t.requires_grad]
    for run in range(2):
        try:
            if again and run == 0:
                grads = autograd.grad(result, needing, create_graph=True, allow_unused=True)
                told += [_array(g) for g in grads]
                firsts = [g for g in grads if g is not None and g.requires_grad]
                second = autograd.grad(sum(g.sum() for g in firsts), needing, allow_unused=True)
                seconds += [_array(g) for g in second]
            else:
                result.backward(retain_graph=run == 0)
        except PolyopError as error:
            told += [type(error), str(error)]
        except Exception as error:  # the author's own, such as one of NumPy
            told += [type(error), str(error)]
        told += [None if t.grad is None else (t.grad.dtype, t.grad.numpy()) for t in maker.leaves]
    return [*told, hooked], seconds


def _array(g: Any) -> Any:
    return None if g is None else g.detach().numpy().copy()
