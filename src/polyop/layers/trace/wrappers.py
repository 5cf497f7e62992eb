"""Traceable wrappers among the inputs and results of a trace: the tensors inside them are (S165).

A graph knows no subclasses. A wrapper that is an input is an input for each
tensor inside it; inside the function it is a wrapper of those, so that what it
does with a call is recorded; a wrapper that is a result is the list of the
tensors inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD, SUBCLASS
from polyop.errors import UsageTypeError, an
from polyop.tensor.subclass import inner_tensors, is_traceable_wrapper_subclass, map_inner
from polyop.tensor.tensor import Tensor


def taken_apart(name: str, leaf: Any) -> list[tuple[str, Any]]:
    """Give the inputs that an argument is in a graph, by name: itself, or the tensors inside it.

    Raises:
        UsageTypeError: a tensor of a subclass that cannot be taken apart.
    """
    if not is_subclass(leaf):
        return [(name, leaf)]
    _check(leaf)
    return [pair for attr, x in inner_tensors(leaf) for pair in taken_apart(f"{name}_{attr}", x)]


def put_together(leaves: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Give the arguments again, with wrappers of the graph's inputs."""
    rest = iter(inputs)
    return [
        _again(leaf, lambda _: next(rest)) if is_subclass(leaf) else next(rest) for leaf in leaves
    ]


def _again(leaf: Tensor, fn: Callable[[Tensor], Tensor]) -> Any:
    made = map_inner(leaf, fn)
    return made.requires_grad_() if leaf.keys & GRAD else made


def inside(result: Any) -> Any:
    """Put the tensors inside a wrapper in its place, wherever it is in a result."""
    return tree.map_leaves(_inside, result)


def _inside(leaf: Any) -> Any:
    if not is_subclass(leaf):
        return leaf
    _check(leaf)
    return [_inside(x) for _, x in inner_tensors(leaf)]


def is_subclass(leaf: Any) -> bool:
    """Tell whether a value is a tensor that its class answers for."""
    return isinstance(leaf, Tensor) and leaf.keys & SUBCLASS != 0


def _check(leaf: Tensor) -> None:
    if not is_traceable_wrapper_subclass(leaf):
        raise UsageTypeError(
            f"{an(type(leaf).__name__)} is an input or result of a trace, which knows plain "
            "tensors",
            seen=repr(leaf),
            fix=f"give {type(leaf).__name__} the methods __tensor_flatten__ and "
            "__tensor_unflatten__",
        )
