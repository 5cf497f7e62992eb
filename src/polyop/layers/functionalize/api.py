"""`functionalize`: a function that writes becomes one that writes nothing it made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from polyop import tree
from polyop.dispatch.context import run_under, word
from polyop.errors import UsageError, UsageTypeError, nearest
from polyop.layers.functionalize.level import FunctionalLevel
from polyop.layers.functionalize.storage import (
    Functional,
    Step,
    Storage,
    Unknown,
    functional,
    replay,
)
from polyop.ops.inplace import copy_
from polyop.ops.rounding import clone
from polyop.tensor.storage import Version
from polyop.tensor.tensor import Tensor

REMOVE = ("mutations", "mutations_and_views")


def functionalize(func: Callable[..., Any], *, remove: str = "mutations") -> Callable[..., Any]:
    """Give a function with the same values, views and gradients that writes nothing it made.

    Writes to arguments come once, at the end.

    Args:
        func: takes and returns trees of tensors.
        remove: `"mutations"`, or `"mutations_and_views"`, which copies views too.

    Raises:
        UsageError: `remove` is neither.
    """
    if not callable(func):
        raise UsageTypeError("functionalize takes a function", seen=repr(func))
    if remove not in REMOVE:
        raise UsageError(
            f"cannot remove {remove!r}{nearest(remove, REMOVE)}", declared=", ".join(REMOVE)
        )

    @wraps(func, updated=())
    def inner(*args: Any, **kwargs: Any) -> Any:
        level = FunctionalLevel(copy_views=remove == "mutations_and_views")
        leaves, structure = tree.flatten((args, kwargs))
        inputs = Inputs([x for x in leaves if isinstance(x, Tensor)], level)
        given = [inputs.wrapped.get(id(x), x) for x in leaves]
        positional, named = tree.unflatten(structure, given)
        try:
            out = run_under(level.inner_word(), func, *positional, **named)
            return inputs.give(out)
        finally:
            level.alive = False

    return inner


class Inputs:
    """The arguments of a functionalized call, and what of them was replaced."""

    def __init__(self, tensors: Sequence[Tensor], level: FunctionalLevel) -> None:
        self.level = level
        self.storages: dict[int, tuple[Tensor, Storage]] = {}  # by the id of the base
        self.wrapped: dict[int, Tensor] = {}  # by the id of the argument
        self.originals: dict[int, Tensor] = {}  # by the id of the wrapper
        self.seen: list[Storage] = []  # the memory that the caller sees
        versions = [t.version for t in {id(t): t for t in tensors}.values()]
        for t in tensors:
            if id(t) not in self.wrapped:
                shared = t.version.__class__ is Version and versions.count(t.version) > 1
                self._take(t, shared)

    def _take(self, t: Tensor, shared: bool) -> None:
        """Wrap an argument; arguments that share memory become views of one base."""
        base, chain = _rooted(t) if shared else (t, ())
        if id(base) not in self.storages:
            self.storages[id(base)] = base, Storage(base)
        storage = self.storages[id(base)][1]
        wrapper = functional(storage, chain, self.level, t if chain else None)
        self.wrapped[id(t)] = wrapper
        self.originals[id(wrapper)] = t

    def give(self, out: Any) -> Any:
        """Write the arguments that were replaced, and give plain results."""
        for base, storage in self.storages.values():
            if storage.value is not base:
                now = word()
                run_under(now.without_grad if storage.hidden else now, copy_, base, storage.value)
                storage.value = base
        leaves = {id(x): x for x in tree.leaves(out) if self.level.owns(x)}
        self.seen = [x.payload.storage for x in leaves.values()]
        self.seen += [storage for _, storage in self.storages.values()]
        return tree.map_leaves(self._given, out)

    def _given(self, leaf: Any) -> Any:
        if not self.level.owns(leaf):
            return leaf
        if id(leaf) in self.originals:
            return self.originals[id(leaf)]
        record: Functional = leaf.payload
        unknown = any(isinstance(step, Unknown) for step in record.chain)
        if unknown and self.seen.count(record.storage) < 2:
            return record.value()  # nobody else sees the memory that it shares
        # A view that is returned shares memory with its base, as that of `func` does.
        value = replay(record.storage.value, record.chain)
        return clone(value) if self.level.copy_views and record.chain else value


def _rooted(t: Tensor) -> tuple[Tensor, tuple[Step, ...]]:
    """Give the base of a view, and the way from there."""
    view = getattr(t, "view_of", None)
    if view is None:
        return t, ()
    parent, op, statics = view
    base, chain = _rooted(parent)
    args = list(statics)
    several = str(op._schema.returns[0].type).endswith("[]")
    item = args.pop() if several else None
    position = next(i for i, a in enumerate(op._schema.arguments) if a.alias_info is not None)
    args.insert(position, None)
    return base, (*chain, Step(op, tuple(args), position, item))
