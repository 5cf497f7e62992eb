"""Writes through views: the history of a base of which a part was written.

NOTE [Writes through views]
A write to a view is a write to a part of its base. The base gets a node whose
backward sends to the old base the gradient with that part replaced: `g +
V'(d - V g)`, where V takes the view (its operators, run again), V' is V's own
gradient, and d is the gradient of the written part. Made of operators only,
this works in every mode and can be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop.dispatch.bits import BATCHED, FUNCTIONAL, GRAD, WRAPPED
from polyop.dispatch.context import run_under, word
from polyop.layers.autograd.arrays import adapted, send
from polyop.layers.autograd.engine import run
from polyop.layers.autograd.node import Node, edges, leaf_node, next_seq, node_of
from polyop.layers.autograd.saved import bare, part_node
from polyop.layers.layouts import laid_out, layout_of
from polyop.ops.define import ON_TENSORS
from polyop.tensor.retaken import Step, take
from polyop.tensor.tensor import Tensor


def region_node(
    root: Tensor, x: Tensor, steps: list[Step], inner: Node | None, capture: Node | None
) -> Node:
    """Make the node of a base of which a part was written (NOTE [Writes through views])."""
    node = Node()
    node.backward = region_backward
    node.seq = next_seq()
    node.op = steps[-1][0]
    former = node_of(root)
    others = () if inner is None else tuple(n for n in edges(inner) if n is not capture)
    node.n0 = others if former is None else (former, *others)
    node.s0 = steps
    node.s1 = inner
    node.s2 = (former, capture, layout_of(root))
    return node


def _region_backward(n: Node, g: Any, grads: dict[Node, Any], push: Callable[[Node], Any]) -> None:
    steps, inner, (former, capture, layout) = n.s0, n.s1, n.s2
    g = laid_out(g, layout)  # for the views are those of the base
    part = take(steps, g)
    own: dict[Any, Any] = {}
    if inner is not None:
        written_node = part_node(inner, node_of(_taken(n, steps, g))) if word().grad else inner
        inner.backward.tensor(written_node, part, own, _ignore)
    written = own.pop(capture, None)
    for node, d in own.items():
        send(node, d, grads, push)
    if former is not None:
        change = ON_TENSORS["negative"](part)
        if written is not None:
            change = ON_TENSORS["add"](change, written)
        send(former, ON_TENSORS["add"](g, put_back(steps, g, change)), grads, push)


region_backward = adapted(_region_backward)


def put_back(steps: Sequence[Step], like: Tensor, part: Tensor) -> Tensor:
    """Give a tensor like the base that is zero but for one part."""
    leaf = leaf_node(like.dtype)
    taken = _taken(leaf, steps, like)
    found = run(
        [(taken.grad_node, part)], retain=False, create_graph=word().grad, wanted=frozenset([leaf])
    )
    back: Tensor = found[leaf]
    return back


def _taken(node: Node, steps: Sequence[Step], like: Tensor) -> Tensor:
    """Take a view of a base that has a node, and is like a tensor without its levels."""
    proxy = bare(_inside(like))
    proxy.grad_node = node
    proxy.keys |= GRAD
    taken: Tensor = run_under(word().with_grad, take, steps, proxy)
    return taken


def _inside(tensor: Tensor) -> Tensor:
    """Take all levels off, which would take the view themselves; of a batch, give one sample."""
    while tensor.keys & WRAPPED:
        record = tensor.payload
        value = record.value() if tensor.keys & FUNCTIONAL else record.value
        tensor = ON_TENSORS["select"](value, record.axis, 0) if tensor.keys & BATCHED else value
    return tensor


def _ignore(node: Node) -> None:
    pass
