"""Small steps of a backward, each on bare arrays and on tensors."""

from __future__ import annotations

from collections.abc import Callable
from operator import add as plus
from typing import Any

import numpy as np

from polyop.dispatch.bits import OTHER
from polyop.dispatch.context import set_word, word
from polyop.layers.autograd.node import Node
from polyop.ops.axes import HALF, SINGLE, is_half
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor, of_array


def conj_array(x: Any) -> Any:
    """Conjugate; a real array is its own, and a number of a `Scalar` overload has no dtype."""
    if x.__class__ in {int, float, bool, complex}:
        return x.conjugate()
    return np.conjugate(x) if x.dtype.kind == "c" else x


def conj_tensor(x: Any) -> Any:
    """Conjugate; a real tensor is its own, as is a number, symbolic ones included."""
    if not isinstance(x, Tensor):
        return x.conjugate() if x.__class__ is complex else x
    return ON_TENSORS["conj"](x) if x.dtype.kind == "c" else x


def cast_array(d: Any, dtype: Any) -> Any:
    """Give a gradient the dtype of its input; that of a real input is real."""
    if d.dtype is dtype or d.dtype == dtype:
        return d
    if d.dtype.kind == "c" and dtype.kind != "c":
        d = d.real
    return d.astype(dtype)


def cast_tensor(d: Any, dtype: Any) -> Any:
    """Give a gradient the dtype of its input; that of a real input is real."""
    if d.dtype == dtype:
        return d
    if d.dtype.kind == "c" and dtype.kind != "c":
        d = ON_TENSORS["real"](d)
    return d if d.dtype == dtype else ON_TENSORS["astype"](d, dtype)


def sum_array_to(d: Any, shape: tuple[int, ...]) -> Any:
    """Sum away the axes along which an input of this shape was broadcast."""
    extra = d.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if n == 1 and d.shape[i + extra] != 1
    )
    if d.itemsize <= HALF and is_half(d.dtype):
        return np.add.reduce(d, axes, SINGLE, keepdims=True).reshape(shape).astype(d.dtype)
    return np.add.reduce(d, axes, keepdims=True).reshape(shape)


def sum_tensor_to(d: Any, shape: Any) -> Any:
    """Sum away the axes along which an input of this shape was broadcast."""
    return ON_TENSORS["sum_to"](d, list(shape))


def fill_arrays(node: Node, given: list[Any]) -> list[Any]:
    """Put zeros in the place of gradients that nobody sent."""
    return [
        np.zeros(*fact) if g is None and fact is not None else g
        for g, fact in zip(given, node.more[0], strict=True)
    ]


def fill_tensors(node: Node, given: list[Any]) -> list[Any]:
    """Put zeros in the place of gradients that nobody sent."""
    like = next(g for g in given if g is not None)
    return [
        zeros(fact[0], fact[1], like) if g is None and fact is not None else g
        for g, fact in zip(given, node.more[0], strict=True)
    ]


def zeros(shape: Any, dtype: Any, like: Any) -> Any:
    """Make zeros that stand beside another tensor."""
    if like.payload.__class__ is np.ndarray:
        return of_array(np.zeros(shape, dtype))
    if like.keys & OTHER:
        made = ON_TENSORS["zero_of"](like, list(shape))
        return made if made.dtype == dtype else ON_TENSORS["astype"](made, dtype)
    return ON_TENSORS["zeros"](list(shape), dtype=dtype, device=like.device)


def adapted(tensor: Callable[..., Any]) -> Callable[..., Any]:
    """Let a backward on tensors run in the midst of one on bare arrays."""

    def backward(n: Node, g: Any, grads: dict[Node, Any], push: Callable[[Node], Any]) -> None:
        own: dict[Node, Any] = {}
        outer = word()
        try:
            set_word(outer.without_grad)
            tensor(n, _wrapped(g), own, _nothing)
        finally:
            set_word(outer)
        for node, value in own.items():
            send(node, _array(value), grads, push)

    backward.tensor = tensor  # type: ignore[attr-defined]
    return backward


def send(node: Node, d: Any, grads: dict[Node, Any], push: Callable[[Node], Any]) -> None:
    """Add a gradient to a node's."""
    if node not in grads:
        grads[node] = d
        if node.seq:
            push(node)
    elif d.__class__ is list:
        grads[node] = [_sum(a, b) for a, b in zip(grads[node], d, strict=True)]
    else:
        grads[node] = _sum(grads[node], d)


def _sum(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return ON_TENSORS["add"](a, b) if isinstance(a, Tensor) else a + b


def _nothing(node: Node) -> None:
    pass


def _wrapped(g: Any) -> Any:
    if g.__class__ is list:
        return [None if x is None else of_array(np.asarray(x)) for x in g]
    return of_array(np.asarray(g))


def _array(value: Any) -> Any:
    if value.__class__ is list:
        return [None if x is None else _array(x) for x in value]
    payload = value.payload
    # Another library's, where a function went over to NumPy on the way.
    return payload if payload.__class__ is np.ndarray else payload.look("backward")


__all__ = [
    "adapted", "cast_array", "cast_tensor", "conj_array", "conj_tensor", "fill_arrays",
    "fill_tensors", "plus", "send", "sum_array_to", "sum_tensor_to", "zeros",
]  # fmt: skip
