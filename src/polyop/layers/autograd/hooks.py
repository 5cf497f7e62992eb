"""Hooks: functions that see, and may replace, the gradient of a tensor.

A hook of a leaf waits in its node; a hook of a computed tensor takes the place
of its node's backward, so that graphs without hooks pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from polyop.dispatch.context import reset_word, set_word, word
from polyop.errors import AutogradError, UsageTypeError
from polyop.layers.autograd.node import Node
from polyop.tensor.tensor import Tensor, of_array

Hook = Callable[[Tensor], "Tensor | None"]
_numbers = count()


class HookHandle:
    """Removes a hook."""

    def __init__(self, hooks: dict[int, Hook], number: int) -> None:
        self._hooks = hooks
        self._number = number

    def remove(self) -> None:
        """Take the hook away."""
        self._hooks.pop(self._number, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def add_hook(node: Node, hook: Hook) -> HookHandle:
    """Add a hook to a node's gradient."""
    if not callable(hook):
        raise UsageTypeError("a hook is a function of the gradient", seen=repr(hook))
    hooks = getattr(node, "hooks", None)
    if hooks is None:
        hooks = node.hooks = {}
        if node.seq:
            node.backward = hooked(node.backward, hooks)
    number = next(_numbers)
    hooks[number] = hook
    return HookHandle(hooks, number)


def keep_grad(node: Node) -> None:
    """Let a computed tensor keep its gradient."""
    if not node.seq or getattr(node, "kept", False) is None:
        return
    node.kept = None

    def keep(g: Tensor) -> None:
        node.kept = g

    add_hook(node, keep)


def hooked(inner: Any, hooks: dict[int, Hook]) -> Any:
    """Give a backward that calls hooks first."""

    def backward(n: Node, g: Any, grads: Any, push: Any) -> None:
        token = set_word(word().without_grad)
        try:
            g = call_hooks(hooks, of_array(np.asarray(g))).payload
        finally:
            reset_word(token)
        inner(n, g, grads, push)

    def on_tensors(n: Node, g: Any, grads: Any, push: Any) -> None:
        inner.tensor(n, call_hooks(hooks, g), grads, push)

    backward.tensor = on_tensors  # type: ignore[attr-defined]
    return backward


def call_hooks(hooks: dict[int, Hook] | None, g: Tensor) -> Tensor:
    """Call hooks in order; each may replace the gradient."""
    for hook in list(hooks.values()) if hooks else ():
        changed = hook(g)
        if changed is None:
            continue
        if not isinstance(changed, Tensor) or tuple(changed.shape) != tuple(g.shape):
            raise AutogradError(
                "a hook returned something that is no gradient of this tensor",
                declared=f"a Tensor of shape {tuple(g.shape)}, or None",
                seen=f"{type(changed).__name__} of shape {getattr(changed, 'shape', None)}",
            )
        g = changed
    return g
