"""Data that a traced function makes: each run of the program has it anew (S209).

What such a tensor holds is an attribute of the program, which reads a copy of it, so that no
write, and no caller, reaches the attribute. A copy that nobody writes or gets is left out.
A write to memory that an array from anywhere has, by `from_numpy`, has no such program.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np

from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import word
from polyop.errors import CaptureError
from polyop.graph import Graph, Node
from polyop.graph.node import CALL_FUNCTION
from polyop.graph.purity import escaping_nodes, is_write, written_nodes
from polyop.ops.define import operator_of
from polyop.ops.rounding import clone
from polyop.tensor.storage import version_of
from polyop.tensor.tensor import Tensor, of_array


class MadeData:
    """The tensors that a traced function makes of data, and their copies in the graph."""

    def __init__(self) -> None:
        self._made: dict[int, weakref.ref[Tensor]] = {}
        #: By the node that copies a tensor: the tensor, and what it held at first.
        self.copies: dict[Node, tuple[Tensor, Tensor]] = {}
        self._versions: dict[int, int] = {}
        self._shared: set[int] = set()

    def add(self, tensor: Tensor, *, shared: bool) -> None:
        """Note a tensor that the function makes, and whether an array has its memory."""
        key = id(tensor)
        self._made[key] = weakref.ref(tensor, lambda _: self._made.pop(key, None))
        (self._shared.add if shared else self._shared.discard)(key)

    def __contains__(self, tensor: Tensor) -> bool:
        found = self._made.get(id(tensor))
        return found is not None and found() is tensor

    def copied(self, graph: Graph, tensor: Tensor, node: Node) -> Node:
        """Give what reads a constant: its node, or that of a copy if the function made it."""
        if tensor not in self:
            return node
        copy = graph.create_node(CALL_FUNCTION, operator_of(clone), (node,), val=node.val)
        self.copies[copy] = tensor, _as_it_is(tensor)
        self._versions[id(tensor)] = version_of(tensor)
        return copy

    def is_behind(self, tensor: Tensor) -> bool:
        """Tell whether a trace on fakes wrote a tensor, whose data stayed as they were."""
        known = self._versions.get(id(tensor)) if tensor in self else None
        return known is not None and known != version_of(tensor) and word().fake is not None

    def settle(self, graph: Graph) -> Iterator[tuple[Node, Tensor, Tensor]]:
        """Leave out the copies that nobody writes or gets.

        Yields:
            For each that stays: the node that it copies, the tensor, and what that held at first.

        Raises:
            CaptureError: one that is written has the memory of an array.
        """
        if not self.copies:
            return
        nodes = [*reversed(graph.nodes)]
        written, escaping = written_nodes(nodes, is_write), escaping_nodes(nodes)
        for copy, (tensor, at_first) in self.copies.items():
            source = copy.args[0]
            if copy in written and id(tensor) in self._shared:
                raise CaptureError(
                    "a tensor over the memory of an array is written, and a program would write "
                    "a copy of it",
                    seen=f"shape {tuple(tensor.shape)}, {tensor.dtype}",
                    fix="copy the array (polyop.tensor), or make a tensor of it outside",
                )
            if copy in written or copy in escaping:
                yield source, tensor, at_first
            else:
                copy.replace_all_uses_with(source)
                graph.erase_node(copy)


def _as_it_is(tensor: Tensor) -> Tensor:
    """Give a tensor with the same data, in memory of its own."""
    found = of_array(np.array(tensor.payload, order="K"))
    return found.requires_grad_() if tensor.keys & GRAD else found
