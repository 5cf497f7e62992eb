"""What backward keeps of the forward, and the check that nobody wrote to it since.

NOTE [Saved results]
A result that its own node kept would be a cycle: tensor, node, tensor. So the
node keeps a twin: the same payload and the same version, but no node. A
gradient that is itself differentiated needs the history back; the twin gets
it from the node that is running. Of a write to a part of a base that node is a
`PartNode`, for the result is that part, and has the history of the base.
"""

from __future__ import annotations

from typing import Any, NoReturn

from polyop import tree
from polyop.dispatch.bits import GRAD, INFERENCE_TENSOR
from polyop.dispatch.context import word
from polyop.errors import AutogradError
from polyop.layers.autograd.node import Node, result_node
from polyop.lazy import load
from polyop.tensor.storage import share
from polyop.tensor.tensor import Tensor


class Twin:
    """A saved result.

    Attributes:
        tensor: the same payload, without history.
        number: which result, or -1 if there is only one.
    """

    __slots__ = ("number", "tensor")
    tensor: Tensor
    number: int


class PartNode(Node):
    """The node of a write to a part of a base, while its backward runs.

    Attributes:
        history: the node of the part, taken of the base after the write.
    """

    __slots__ = ("history",)
    history: Node | None


def part_node(node: Node, history: Node | None) -> PartNode:
    """Give a node like another one, whose result has another history."""
    made = PartNode()
    for name in Node.__slots__:
        if name != "__weakref__" and hasattr(node, name):
            setattr(made, name, getattr(node, name))
    made.history = history
    return made


def bare(tensor: Tensor) -> Tensor:
    """Give a tensor on the same payload, with the same version and without history."""
    if tensor.__class__ is Tensor:
        t = Tensor()
    else:
        t = load("polyop.tensor.subclass:copy_of")(tensor)
    t.payload = tensor.payload
    t.keys = tensor.keys & ~GRAD
    t.version = share(tensor)
    found = getattr(tensor, "graph_node", None)
    if found is not None:
        t.graph_node = found
    return t


def apart(value: Any) -> Any:
    """Give other handles of tensors that have a history: recording would write over it.

    A mode may answer with an argument, or with what it kept of another call.
    """
    return _apart(value) if isinstance(value, Tensor) else tree.map_leaves(_apart, value)


def _apart(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value.keys & GRAD:
        return value
    made = load("polyop.tensor.subclass:copy_of")(value)
    made.keys &= ~GRAD
    made.version = share(value)
    return made


def twin(tensor: Tensor, number: int) -> Twin:
    """Make what a node keeps of its own result."""
    made = Twin()
    made.tensor = bare(tensor)
    made.number = number
    return made


def revive(node: Node, saved: Any) -> Any:
    """Give a saved result as a tensor, with its history if gradients are recorded."""
    if saved.__class__ is not Twin:
        return saved
    if not word().grad:
        return saved.tensor
    t = bare(saved.tensor)
    t.keys |= GRAD
    if node.__class__ is PartNode:
        t.grad_node = node.history
    else:
        t.grad_node = node if saved.number < 0 else result_node(node, saved.number)
    return t


def count_of(tensor: Any) -> int:
    """Count the writes to what is saved.

    Raises:
        AutogradError: the tensor was made under inference mode.
    """
    if tensor.keys & INFERENCE_TENSOR:
        raise AutogradError(
            "a tensor made under inference_mode cannot be saved for backward",
            seen=f"shape {tuple(tensor.shape)}",
            fix="clone it outside of inference_mode, or make it under no_grad",
        )
    version = tensor.version
    count: int = version if version.__class__ is int else version.n
    return count


def check(node: Node, name: str, saved: Any, then: int) -> None:
    """Check that a saved tensor was not written since.

    Raises:
        AutogradError: it was.
    """
    version = saved.version
    now = version if version.__class__ is int else version.n
    if now != then:
        stale(node, name, saved, then)


def stale(node: Node, name: str, saved: Any, then: int) -> NoReturn:
    """Raise the error of a saved tensor that was written since."""
    version = saved.version
    now = version if version.__class__ is int else version.n
    op = node.op
    raise AutogradError(
        f"{name!r}, which the gradient of {op.name() if hasattr(op, 'name') else op} needs, "
        "was written after it was saved",
        op=getattr(op, "_schema", op),
        argument=name,
        declared=f"version {then} when it was saved",
        seen=f"version {now}, shape {tuple(saved.shape)}",
        fix="write to a clone, or use the operator that returns a new tensor",
    )
