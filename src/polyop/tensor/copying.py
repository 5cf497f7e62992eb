"""Copies of tensors, shallow and deep, and what pickles of them hold.

A shallow copy is another handle of the same memory, so it shares the count of writes, and gradients
flow through it. A deep copy has memory of its own and, as a pickle, no history: of a tensor that
was computed with gradients it would cut these off unseen, so there it is refused. Inside a
transform a deep copy is made by operators, so derivatives flow through it as through a clone.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from polyop.dispatch.bits import FAKE, GRAD, WRAPPED
from polyop.dispatch.context import run_under, word
from polyop.dispatch.parts import PARTS
from polyop.errors import AutogradError
from polyop.tensor.retaken import retaken
from polyop.tensor.storage import share
from polyop.tensor.subclass import copy_of, make_subclass
from polyop.tensor.tensor import Tensor, of_array


def shallow(tensor: Any) -> Any:
    """Give another handle of a tensor: of its class, with its attributes and history.

    That of a leaf is a leaf of its own, with a gradient of its own.
    """
    leaf = is_leaf(tensor) and not tensor.keys & WRAPPED
    if type(tensor) is Tensor and (tensor.keys & (WRAPPED | FAKE) or word().recorder is not None):
        made = PARTS.find_operator("core::detach" if leaf else "core::alias", "", 0)(tensor)
        return made.requires_grad_() if leaf else made
    made = copy_of(tensor)
    made.version = share(tensor)
    for name in ("grad_node", "view_of"):
        if getattr(tensor, name, None) is not None:
            setattr(made, name, getattr(tensor, name))
    if leaf:
        made.keys &= ~GRAD
        made.requires_grad_()
    return made


def deep(tensor: Any, memo: dict[int, Any]) -> Any:
    """Give a copy with memory of its own, and of its own gradient.

    What is copied with it and shares its memory shares that of the copy.

    Raises:
        AutogradError: the tensor was computed with gradients, which the copy would not have, or is
            a view with derivatives inside a transform.
    """
    if _is_computed(tensor):
        raise AutogradError(
            "a deep copy of a computed tensor would lose its gradient",
            seen=f"shape {tuple(tensor.shape)}, computed from tensors that require grad",
            fix="call .clone(), which keeps the gradient, or .detach() first",
        )
    made = _copied(tensor, memo)
    if type(made) is not type(tensor):
        made = _of_class(type(tensor), made)
    if hasattr(tensor, "__dict__") and made is not tensor:
        memo[id(tensor)] = made  # an attribute may lead back here
        for name, value in vars(tensor).items():
            if name not in vars(made):
                setattr(made, name, deepcopy(value, memo))
    if tensor.requires_grad and not made.requires_grad and not tensor.keys & WRAPPED:
        made.requires_grad_()
    memo[id(tensor)] = made
    if getattr(tensor, "grad", None) is not None:
        made.grad = deepcopy(tensor.grad, memo)
    return made


def _is_computed(tensor: Any) -> bool:
    return bool(tensor.keys & GRAD) and not tensor.keys & WRAPPED and not is_leaf(tensor)


def _copied(tensor: Any, memo: dict[int, Any]) -> Any:
    """Copy the data; a view is taken again, of the copy of its base."""
    base = _copied_base(tensor)
    if base is None:
        return tensor.clone() if tensor.keys & WRAPPED else tensor.detach().clone()
    if tensor.keys & WRAPPED and _has_derivative(tensor):
        raise AutogradError(
            "a deep copy of a view inside a transform would lose its derivative",
            seen=f"shape {tuple(tensor.shape)}, made by {tensor.view_of[1].name()}",
            fix="call .clone(), which keeps the derivative, or .detach() first",
        )
    bases = []
    while base is not None and id(base) not in memo:
        bases.append(base)
        base = _copied_base(base)
    # From the root on, so that each finds the copy of its base: a chain may be long.
    copies = [deepcopy(base, memo) for base in reversed(bases)]
    copy = copies[-1] if copies else memo[id(base)]
    return run_under(word().without_grad, retaken, tensor.view_of[1:], copy)


def _copied_base(tensor: Any) -> Any:
    """Give the base of a view that is taken again of its copy, or None."""
    base, *step = getattr(tensor, "view_of", None) or (None,)
    if type(tensor) is not Tensor or type(base) is not Tensor or _is_computed(base):
        return None
    return None if step[0]._schema.is_mutable else base


def _has_derivative(tensor: Any) -> bool:
    """Tell whether a gradient or a tangent flows through a tensor, at whichever level."""
    while tensor.keys & WRAPPED and not tensor.keys & GRAD:
        if getattr(tensor.payload, "tangent", None) is not None:
            return True
        value = tensor.payload.value
        tensor = value() if callable(value) else value
    return bool(tensor.keys & GRAD)


def reduced(tensor: Any) -> tuple[Any, ...]:
    """Give what a pickle holds: the data, and whether it requires grad; attributes of a class.

    Raises:
        AutogradError: it is inside a transform, and the pickle would lose its derivative.
    """
    if tensor.keys & WRAPPED and tensor.payload.level.alive and _has_derivative(tensor):
        raise AutogradError(
            "a pickle of a tensor inside a transform would lose its derivative",
            seen=f"shape {tuple(tensor.shape)}, under {tensor.payload.level.kind}",
            fix="compute by operators, or say so with .detach()",
        )
    given = (tensor._data("pickle"), tensor.requires_grad)
    if type(tensor) is Tensor:
        return (restored, given)
    return (restored, (*given, type(tensor)), getattr(tensor, "__dict__", {}) or None)


def restored(array: Any, requires_grad: bool, cls: Any = Tensor) -> Any:
    """Make the tensor of a pickle."""
    made = of_array(array)
    if cls is not Tensor:
        made = _of_class(cls, made)
    if requires_grad:
        made.requires_grad_()
    return made


def _of_class(cls: Any, tensor: Any) -> Any:
    return make_subclass(cls, tensor)


def is_leaf(tensor: Any) -> bool:
    """Tell whether a tensor requires grad, and is not computed from others that do."""
    return bool(tensor.keys & GRAD) and tensor.grad_node.seq == 0
