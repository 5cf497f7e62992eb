"""Hooks: functions that see, and may replace, the gradients of tensors and of nodes.

A hook of a leaf waits in its node; a hook of a computed tensor takes the place
of its node's backward, so that graphs without hooks pay nothing. The order is
PyTorch's: a tensor's hooks as they were registered, what `retain_grad` keeps,
the node's own hooks around its backward, and after all a leaf's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from math import inf
from typing import Any
from weakref import ref

import numpy as np

from polyop.dispatch.context import run_under, set_word, word
from polyop.errors import AutogradError, UsageTypeError
from polyop.layers.autograd.arrays import send
from polyop.layers.autograd.node import Node, edges
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor, of_array

Hook = Callable[[Tensor], "Tensor | None"]
_numbers = count()


class Hooks(dict[float, Any]):
    """The hooks of a tensor by number; `after` are those that run once `.grad` has changed."""

    __slots__ = ("after",)
    after: dict[float, Any]

    def __init__(self) -> None:
        super().__init__()
        self.after = {}

    def __bool__(self) -> bool:
        return len(self) > 0 or len(self.after) > 0


class HookHandle:
    """Removes a hook."""

    def __init__(self, hooks: dict[float, Any], number: float) -> None:
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
    return _added(_hooks_of(node), hook, "a hook is a function of the gradient")


def _added(hooks: dict[float, Any], hook: Any, what: str) -> HookHandle:
    if not callable(hook):
        raise UsageTypeError(what, seen=repr(hook))
    number = next(_numbers)
    hooks[number] = hook
    return HookHandle(hooks, number)


def _hooks_of(node: Node) -> Hooks:
    hooks: Hooks | None = getattr(node, "hooks", None)
    if hooks is None:
        hooks = node.hooks = Hooks()
        if node.seq:
            node.backward = Hooked(node.backward, hooks)
    return hooks


def add_hook_after(tensor: Tensor, hook: Callable[[Tensor], None]) -> HookHandle:
    """Add a hook that gets a leaf when `backward` has added to its `.grad`.

    Raises:
        AutogradError: the tensor is no leaf.
    """
    node: Node = tensor.grad_node
    if node.seq:
        raise AutogradError(
            "register_post_accumulate_grad_hook is for leaves: nothing accumulates in a computed "
            "tensor",
            seen=f"shape {tuple(tensor.shape)}",
            fix="use register_hook, or register it on the leaf",
        )
    found = ref(tensor)

    def with_tensor() -> None:
        leaf = found()
        if leaf is not None:
            hook(leaf)

    if not callable(hook):
        raise UsageTypeError("a hook is a function of the tensor", seen=repr(hook))
    return _added(_hooks_of(node).after, with_tensor, "")


def run_after(node: Node) -> None:
    """Run the hooks of a leaf whose `.grad` has changed."""
    hooks: Hooks | None = node.hooks
    if hooks is not None:
        for hook in list(hooks.after.values()):
            hook()


def keep_grad(node: Node) -> None:
    """Let a computed tensor keep its gradient."""
    if not node.seq or keeps_grad(node):
        return
    node.kept = None

    def keep(g: Tensor) -> None:
        node.kept = g if node.kept is None else ON_TENSORS["add"](node.kept, g)

    _hooks_of(node)[inf] = keep  # the last: other hooks may replace the gradient


def keeps_grad(node: Node) -> bool:
    """Tell whether a computed tensor keeps its gradient."""
    return inf in (getattr(node, "hooks", None) or ())


class Hooked:
    """A backward that calls hooks first."""

    __slots__ = ("hooks", "inner")

    def __init__(self, inner: Any, hooks: Hooks) -> None:
        self.inner = inner
        self.hooks = hooks

    def __call__(self, n: Node, g: Any, grads: Any, push: Any) -> None:
        """Run it on bare arrays."""
        self.inner(n, self.replaced(g), grads, push)

    def tensor(self, n: Node, g: Any, grads: Any, push: Any) -> None:
        """Run it on tensors."""
        self.inner.tensor(n, call_hooks(self.hooks, g), grads, push)

    def replaced(self, g: Any) -> Any:
        """Give the bare gradient that the hooks leave."""
        outer = word()
        try:
            set_word(outer.without_grad)
            return call_hooks(self.hooks, of_array(np.asarray(g))).payload
        finally:
            set_word(outer)


def captured(n: Node, g: Any, *, tensors: bool) -> tuple[Any, Any]:
    """Give the gradient of a node that is asked for, and the backward that is left to run."""
    hooked = n.backward
    if not isinstance(hooked, Hooked):
        return g, None
    seen = call_hooks(hooked.hooks, g) if tensors else hooked.replaced(g)
    return seen, hooked.inner


def call_hooks(hooks: dict[float, Any] | None, g: Tensor) -> Tensor:
    """Call hooks in order; each may replace the gradient."""
    for number in sorted(hooks) if hooks else ():
        hook = hooks.get(number) if hooks else None
        changed = None if hook is None else hook(g)
        if changed is not None:
            g = _checked(changed, g)
    return g


def _checked(changed: Any, g: Tensor) -> Tensor:
    if isinstance(changed, Tensor) and tuple(changed.shape) == tuple(g.shape):
        return changed
    raise AutogradError(
        "a hook returned something that is no gradient of this tensor",
        declared=f"a Tensor of shape {tuple(g.shape)}, or None",
        seen=f"{type(changed).__name__} of shape {getattr(changed, 'shape', None)}",
    )


# -- hooks of nodes -----------------------------------------------------------


class NodeHooks:
    """The backward of a node with hooks of its own: `before` it, and `behind` it.

    All work on tuples: one gradient per result, and one per node of an input.
    """

    __slots__ = ("before", "behind", "inner")

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.before: dict[float, Any] = {}
        self.behind: dict[float, Any] = {}

    def __call__(self, n: Node, g: Any, grads: Any, push: Any) -> None:
        """Run it on bare arrays."""
        given = tuple([None if x is None else of_array(np.asarray(x)) for x in _listed(g)])
        given = run_under(word().without_grad, self._first, given)
        bare = [None if x is None else x.payload for x in given]
        found = self._inner(self.inner, n, bare if g.__class__ is list else bare[0])
        wrapped = [None if d is None else of_array(np.asarray(d)) for d in found.values()]
        done = run_under(word().without_grad, self._last, tuple(wrapped), given)
        for m, d in zip(found, done, strict=True):
            if d is not None:
                send(m, d.payload, grads, push)

    def tensor(self, n: Node, g: Any, grads: Any, push: Any) -> None:
        """Run it on tensors."""
        given = self._first(tuple(_listed(g)))
        found = self._inner(self.inner.tensor, n, list(given) if g.__class__ is list else given[0])
        for m, d in zip(found, self._last(tuple(found.values()), given), strict=True):
            if d is not None:
                send(m, d, grads, push)

    def _inner(self, step: Any, n: Node, g: Any) -> dict[Node, Any]:
        found: dict[Node, Any] = {}
        step(n, g, found, _nothing)
        return {m: found.get(m) for m in dict.fromkeys(edges(n))}

    def _first(self, given: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in list(self.before.values()):
            changed = hook(given)
            given = given if changed is None else _tuple_like(changed, given)
        return given

    def _last(self, found: tuple[Any, ...], given: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in list(self.behind.values()):
            changed = hook(found, given)
            found = found if changed is None else _tuple_like(changed, found)
        return found


def _listed(g: Any) -> list[Any]:
    return g if g.__class__ is list else [g]


def _nothing(node: Node) -> None:
    pass


def _tuple_like(changed: Any, old: tuple[Any, ...]) -> tuple[Any, ...]:
    new = changed if isinstance(changed, tuple) else (changed,)
    fits = len(new) == len(old) and all(
        a is None or (isinstance(a, Tensor) and (b is None or tuple(a.shape) == tuple(b.shape)))
        for a, b in zip(new, old, strict=False)
    )
    if not fits:
        raise AutogradError(
            "a hook of a node returned gradients that do not fit",
            declared=f"a tuple of {len(old)} gradients of the same shapes, or None",
            seen=f"{type(changed).__name__} of {len(new)}",
        )
    return new


def add_node_hook(node: Node, hook: Any, *, before: bool) -> HookHandle:
    """Add a hook to a node's backward.

    Args:
        node: of a computed tensor.
        hook: `(grad_outputs)`, or `(grad_inputs, grad_outputs)`; gives others, or None.
        before: whether it runs before the backward.
    """
    outer = node.backward if isinstance(node.backward, Hooked) else None
    inner = node.backward if outer is None else outer.inner
    if not isinstance(inner, NodeHooks):
        inner = NodeHooks(inner)
        if outer is None:
            node.backward = inner
        else:
            outer.inner = inner
    return _added(inner.before if before else inner.behind, hook, "a hook is a function")
