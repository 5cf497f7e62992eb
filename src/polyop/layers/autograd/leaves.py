"""What leaves keep of the gradients that come to them, from any thread (S138)."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import numpy as np

from polyop.dispatch.bits import NUMPY
from polyop.forks import process_lock
from polyop.layers.autograd.arrays import cast_array
from polyop.layers.autograd.engine import owned_array
from polyop.layers.autograd.hooks import call_hooks, keeps_grad, run_after
from polyop.layers.autograd.node import Node
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor, of_array

#: The nodes of leaves that were told to require no grad: graphs still lead to them.
FROZEN: WeakSet[Node] = WeakSet()
#: The set inside, whose truth takes no call.
ANY_FROZEN = FROZEN.data  # type: ignore[attr-defined]
#: Held while a gradient takes the place of the one that it was added to; nothing else runs then.
STORING = process_lock()


def accumulate(node: Node, g: Tensor) -> None:
    """Add a gradient to what a leaf keeps, or a computed tensor that was asked for."""
    if node in FROZEN:
        return
    if node.seq:  # its hooks have run, and with them what `retain_grad` keeps
        if not keeps_grad(node):
            _add(node, g)
        return
    _add(node, call_hooks(node.hooks, g))
    run_after(node)


def _add(node: Node, g: Tensor) -> None:
    stored = False
    while not stored:
        kept = getattr(node, "kept", None)
        # Alone it may be what was given to backward, or what an author or a hook keeps.
        new = ON_TENSORS["clone"](g) if kept is None else ON_TENSORS["add"](kept, g)
        stored = _stored(node, kept, new)


def _stored(node: Node, kept: Tensor | None, new: Tensor) -> bool:
    """Store a gradient, unless another thread has stored one since `kept` was read."""
    with STORING:
        if getattr(node, "kept", None) is kept:
            node.kept = new
            return True
    return False


def add_array(node: Node, g: Any) -> None:
    """Add a bare gradient to what a leaf keeps."""
    if ANY_FROZEN and node in FROZEN:
        return
    while True:
        kept = node.kept
        if node.hooks or (kept is not None and kept.keys != NUMPY):
            accumulate(node, owned_array(node, g))
            return
        if kept is None:
            new = owned_array(node, g)
        else:
            new = of_array(np.asarray(kept.payload + cast_array(g, node.more)))
        with STORING:  # `_stored`, in this frame
            if node.kept is kept:
                node.kept = new
                return
