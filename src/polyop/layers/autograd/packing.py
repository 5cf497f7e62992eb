"""`saved_tensors_hooks`: functions that keep, in their own way, what backward needs.

Like anomaly mode this is a bit of the context's word: only calls under a block
meet it. Once a call is recorded, what its node saved is handed to `pack`; the
node's backward asks `unpack` for it, for as long as it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import Word, entered, run_under, word
from polyop.dispatch.operator import Handler
from polyop.dispatch.results import tensors_in
from polyop.errors import AutogradError, UsageTypeError
from polyop.forks import lock_maker
from polyop.layers.autograd.context import Context
from polyop.layers.autograd.node import Node, next_seq
from polyop.layers.autograd.saved import Twin, bare, count_of
from polyop.tensor.tensor import Tensor

#: The slots of a node that hold what its backward reads.
SAVED_SLOTS = ("s0", "s1", "s2")
_new_lock = lock_maker()


class saved_tensors_hooks(entered):
    """Keeps what calls in the block save for backward as `pack` gives it.

    Blocks do not add up: the innermost acts. Transforms such as `func.grad`,
    whose graphs end with them, save as ever.

    Args:
        pack: gets a tensor, without history, when a call is recorded; gives anything.
        unpack: gets what `pack` gave, in backward; gives a tensor like the saved one.

    Raises:
        UsageTypeError: one of them is no function.
        AutogradError: in backward, if `unpack` gives something else.

    Example:
        >>> import polyop
        >>> x = polyop.ones(2).requires_grad_()
        >>> with saved_tensors_hooks(lambda t: t.numpy(), polyop.from_numpy):
        ...     y = (x * x).sum()
        >>> y.backward()
        >>> x.grad
        tensor([2., 2.])
    """

    __slots__ = ("_hooks",)

    def __init__(self, pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> None:
        for name, fn in (("pack", pack), ("unpack", unpack)):
            if not callable(fn):
                raise UsageTypeError(f"{name} is a function", argument=name, seen=repr(fn))
        self._hooks = (pack, unpack)

    def word(self) -> Word:
        """Give the current word with these hooks."""
        return word().but(packing=self._hooks)


class Packed:
    """A saved tensor as `pack` gave it, and what is to be said of it."""

    __slots__ = ("count", "dtype", "given", "node", "shape", "value")
    value: Any
    given: Tensor
    shape: Any
    dtype: Any
    count: int
    node: Node | None


def packing(handler: Handler) -> Handler:
    """Hand what a handler's nodes save to the hooks."""

    def run(*args: Any) -> Any:
        before = next_seq()
        out = handler(*args)
        pack_results((args, out), before)
        return out

    return run


def pack_results(values: Any, before: int) -> None:
    """Pack what the nodes of tensors save that were made after a number."""
    hooks = word().packing
    if hooks is None:
        return
    pack, unpack = hooks
    quiet = word().but(packing=None, grad=False)
    for node in _fresh(values, before):
        if run_under(quiet, _pack_node, node, pack):
            node.backward = unpacking(node.backward, unpack)


def _fresh(values: Any, before: int) -> list[Node]:
    nodes = {t.grad_node for t in tensors_in(values) if t.keys & GRAD}
    every = {m for n in nodes for m in _parts(n)}
    return [n for n in every if n.seq > before and not isinstance(n.backward, Unpacking)]


def _parts(node: Node) -> Iterator[Node]:
    """Give a node, that of the call that it is a result of, and that of a write inside of it."""
    yield node
    for name in ("n0", "s1"):
        inner = getattr(node, name, None)
        if inner.__class__ is Node:
            yield inner


def _pack_node(node: Node, pack: Callable[[Tensor], Any]) -> bool:
    changed = False
    for name in SAVED_SLOTS:
        old = getattr(node, name, None)
        new = _mapped(old, lambda t: _packed(t, pack))
        if new is not old:
            setattr(node, name, new)
            changed = True
    return changed


def _packed(tensor: Tensor, pack: Callable[[Tensor], Any]) -> Packed:
    made = Packed()
    made.given = bare(tensor)
    made.value = pack(made.given)
    made.shape, made.dtype = tensor.payload.shape, tensor.payload.dtype
    made.count = count_of(tensor)
    made.node = tensor.grad_node if tensor.keys & GRAD else None
    if made.value is not made.given:
        del made.given  # the hooks alone keep what is saved
    return made


def _mapped(value: Any, fn: Callable[[Any], Any]) -> Any:
    """Apply `fn` to the saved tensors in a value; one without any is given as it is."""
    if isinstance(value, (Tensor, Packed)):
        return fn(value)
    if value.__class__ in {list, tuple}:
        new = [_mapped(item, fn) for item in value]
        same = all(a is b for a, b in zip(new, value, strict=True))
        return value if same else value.__class__(new)
    if value.__class__ is Twin:
        twin = Twin()
        twin.tensor, twin.number = fn(value.tensor), value.number
        return twin
    if isinstance(value, Context) and value._saved:
        made = value.running(value._node)
        made._saved = _mapped(value._saved, fn)
        return made
    return value


class Unpacking:
    """A backward that sees what its node saved as `unpack` gives it."""

    def __init__(self, inner: Any, unpack: Callable[[Any], Tensor]) -> None:
        self.inner = inner
        self.unpack = unpack
        self.lock = _new_lock()  # what is saved stands on the node, for one run at a time

    def __call__(self, n: Node, g: Any, grads: Any, push: Any) -> None:
        """Run it on bare arrays."""
        self._run(self.inner, n, g, grads, push)

    def tensor(self, n: Node, g: Any, grads: Any, push: Any) -> None:
        """Run it on tensors."""
        self._run(self.inner.tensor, n, g, grads, push)

    def _run(self, step: Any, n: Node, g: Any, grads: Any, push: Any) -> None:
        with self.lock:
            kept = {name: getattr(n, name) for name in SAVED_SLOTS if hasattr(n, name)}
            for name, value in kept.items():
                setattr(n, name, _mapped(value, self._unpacked))
            try:
                step(n, g, grads, push)
            finally:
                for name, value in kept.items():
                    setattr(n, name, value)

    def _unpacked(self, packed: Any) -> Any:
        if not isinstance(packed, Packed):
            return packed
        given = run_under(word().but(packing=None, grad=False), self.unpack, packed.value)
        _check(packed, given)
        made = bare(given)
        if given is not getattr(packed, "given", None):
            made.version = packed.count
        if packed.node is not None:
            made.grad_node = packed.node
            made.keys |= GRAD
        return made


def unpacking(inner: Any, unpack: Callable[[Any], Tensor]) -> Any:
    """Give a backward that asks `unpack` for what its node saved."""
    return Unpacking(inner, unpack)


def _check(packed: Packed, given: Any) -> None:
    seen = f"{type(given).__name__} {given!r:.60}"
    if isinstance(given, Tensor):
        if (given.shape, given.dtype) == (packed.shape, packed.dtype):
            return
        seen = f"shape {tuple(given.shape)}, dtype {given.dtype}"
    raise AutogradError(
        "unpack of saved_tensors_hooks gives something else than what was saved",
        declared=f"a Tensor of shape {tuple(packed.shape)}, dtype {packed.dtype}",
        seen=seen,
        fix="give back a tensor equal to the one that pack got",
    )
