"""`Node`: how a tensor that requires grad was computed, and the way back.

One class for everything that is recorded. A node knows the nodes of its
inputs, what its backward reads, and the backward itself, a function that
pushes its gradients into the run's table:

    backward(node, gradient, grads, push)

`backward` works on bare NumPy arrays; its attribute `tensor` is the same on
tensors, for gradients that somebody watches. Nodes are numbered as they are
made, so the highest number first is a topological order. Number 0 is a leaf:
it waits in the table until the run is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from weakref import WeakSet

from polyop.dispatch.bits import GRAD
from polyop.errors import AutogradError
from polyop.lazy import load

Backward = Callable[["Node", Any, dict["Node", Any], Callable[["Node"], Any]], None]

#: Counts nodes up; one bytecode in C, so threads need no lock.
next_seq = count(1).__next__


class Node:
    """One recorded call, or a leaf.

    Attributes:
        backward: pushes the gradients of the inputs.
        seq: its number; 0 for a leaf.
        op: the operator, for errors.
        n0, n1: the nodes of the inputs; `n0` is a tuple of all if there are more than two.
        s0, s1, s2: saved values; `s0` is a tuple of all if there are more than three.
        v0, v1: versions of saved tensors at saving; a tuple in `v0` if more than two.
        x0, x1: shapes of inputs that were broadcast; a tuple in `x0` if more than two.
        more: dtypes to cast to, facts of several results, or a rule's own record.
        kept: the gradient that `.grad` shows.
        hooks: of a leaf, called with its gradient.
    """

    __slots__ = (
        "__weakref__", "backward", "hooks", "kept", "more", "n0", "n1", "op", "s0", "s1", "s2",
        "seq", "v0", "v1", "x0", "x1",
    )  # fmt: skip
    backward: Any
    seq: int
    op: Any
    n0: Any
    n1: Any
    s0: Any
    s1: Any
    s2: Any
    v0: Any
    v1: Any
    x0: Any
    x1: Any
    more: Any
    kept: Any
    hooks: Any

    def name(self) -> str:
        """Name the operator that was recorded."""
        name = getattr(self.op, "name", None)
        return str(name() if callable(name) else name or self.op)

    @property
    def next_functions(self) -> tuple[tuple[Node, int], ...]:
        """The nodes of the inputs, each with the number of the result that was used."""
        return tuple([_numbered(n) for n in edges(self)])

    def register_hook(self, hook: Callable[..., Any]) -> Any:
        """Call `hook(grad_inputs, grad_outputs)` behind this backward.

        `grad_inputs` has one gradient, or None, per node of an input, in the
        order of `next_functions`; a tensor that was used twice has one. A
        tuple that the hook returns takes its place.

        Raises:
            AutogradError: in backward, if what it returns does not fit.
        """
        return load("polyop.layers.autograd.hooks:add_node_hook")(self, hook, before=False)

    def register_prehook(self, hook: Callable[..., Any]) -> Any:
        """Call `hook(grad_outputs)` before this backward; a tuple that it returns is used instead.

        Raises:
            AutogradError: in backward, if what it returns does not fit.
        """
        return load("polyop.layers.autograd.hooks:add_node_hook")(self, hook, before=True)


def _numbered(node: Node) -> tuple[Node, int]:
    main = getattr(node, "n0", None)
    return (main, node.x0) if is_result(node) and main.__class__ is Node else (node, 0)


#: The nodes of calls that a Tensor subclass answered.
SUBCLASS_NODES: WeakSet[Node] = WeakSet()


def leaf_node(dtype: Any) -> Node:
    """Make the node of a leaf, whose gradients have this dtype."""
    node = Node()
    node.seq = 0
    node.kept = None
    node.hooks = None
    node.more = dtype
    return node


def edges(node: Node) -> Iterator[Node]:
    """Give the nodes of the inputs."""
    for name in ("n0", "n1"):
        found = getattr(node, name, None)
        if found.__class__ is Node:
            yield found
        elif found is not None:
            for item in found:
                if item.__class__ is Node:
                    yield item
                elif item is not None:
                    yield from (x for x in item if x is not None)


def node_of(tensor: Any) -> Node | None:
    """Give the node of a tensor that requires grad, or None."""
    found: Node | None = tensor.grad_node if tensor.keys & GRAD else None
    return found


def freed(node: Node, g: Any, grads: Any, push: Any) -> None:
    """Raise: what this node saved is gone."""
    raise AutogradError(
        "a second backward goes through a graph whose saved values were freed by the first",
        op=node.op,
        fix="pass retain_graph=True to the first backward",
    )


freed.tensor = freed  # type: ignore[attr-defined]


def collect(node: Node, g: Any, grads: dict[Node, Any], push: Callable[[Node], Any]) -> None:
    """Put the gradient of one of several results where the operator's node finds them all."""
    main = node.n0
    if main not in grads:
        grads[main] = [None] * len(main.more[0])
        push(main)
    held = grads[main][node.x0]
    # A result that its own gradient read has a node of its own, beside that of the forward.
    grads[main][node.x0] = g if held is None else held + g


collect.tensor = collect  # type: ignore[attr-defined]


def is_result(node: Node) -> bool:
    """Tell whether a node is that of one of several results."""
    backward = getattr(node, "backward", None)
    return getattr(backward, "inner", backward) is collect


def result_node(main: Node, number: int) -> Node:
    """Make the node of one of several results."""
    node = Node()
    node.backward = collect
    node.seq = next_seq()
    node.op = main.op
    node.n0 = main
    node.x0 = number
    return node
