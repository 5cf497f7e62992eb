"""Writes through views: the history of a base of which a part was written.

NOTE [Writes through views]
A write to a view is a write to a part of its base. The base gets a node whose
backward sends to the old base the gradient `g` with that part set to `d`, the
gradient of what was written over. The view is taken of `g` (its operators, run
again) and put back by the inverses of its operators. One without an inverse,
such as an author's, is put back by its own gradient V': `V' d` where `V' 1` is
not zero, else `g`. No difference is added, for `g - g` is not zero where `g`
is not finite. Made of operators only, this works in every mode and can be
differentiated.
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
from polyop.ops.views import VIEW_INVERSES
from polyop.tensor.retaken import Step, retaken, take
from polyop.tensor.tensor import Tensor

#: Views that may have an element of the base several times; of their inverse, one would win.
REPEATING = {"core::broadcast_to", "memory::strided"}


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
        new = ON_TENSORS["zero_like"](part) if written is None else written
        send(former, _with_part(steps, g, new), grads, push)


region_backward = adapted(_region_backward)


def _with_part(steps: Sequence[Step], base: Tensor, part: Tensor) -> Tensor:
    """Give a base with a view of it replaced."""
    if not steps:
        return part
    op, statics = steps[0]
    inverse = None if op.name() in REPEATING else VIEW_INVERSES.get(op.name())
    if inverse is None:
        return _where_put(steps, base, part)
    value = _with_part(steps[1:], retaken(steps[0], base), part) if steps[1:] else part
    found: Tensor = inverse(base, value, *statics)
    return found


def _where_put(steps: Sequence[Step], base: Tensor, part: Tensor) -> Tensor:
    """Give a base with a view of it replaced, by the gradient of the view alone."""
    one: Any = 1 + 1j if part.dtype.kind == "c" else 1
    taken = put_back(steps, base, ON_TENSORS["fill"](part, one))
    back = put_back(steps, base, part)
    if base.dtype.kind != "c":
        return _chosen(taken, back, base)
    real, imag = ([ON_TENSORS[name](x) for x in (taken, back, base)] for name in ("real", "imag"))
    found: Tensor = ON_TENSORS["complex"](_chosen(*real), _chosen(*imag))
    return found


def _chosen(taken: Tensor, back: Tensor, base: Tensor) -> Tensor:
    here = ON_TENSORS["not_equal"](taken, ON_TENSORS["zero_like"](taken))
    found: Tensor = ON_TENSORS["where"](here, back, base)
    return found


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
