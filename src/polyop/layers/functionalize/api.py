"""`functionalize`: a function that writes becomes one that writes nothing it made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

from polyop import tree
from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import run_under, word
from polyop.errors import MutationError, UsageError, UsageTypeError, nearest
from polyop.layers.functionalize.level import FunctionalLevel
from polyop.layers.functionalize.storage import (
    Chain,
    Functional,
    Own,
    Storage,
    Unknown,
    functional,
    last_step,
    own_of,
)
from polyop.layers.memory import meet
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
        return call_at(level, func, args, kwargs)

    return inner


def call_at(level: FunctionalLevel, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a function at a level of functionalization, which ends with it."""
    leaves, structure = tree.flatten((args, kwargs))
    inputs = Inputs([x for x in leaves if isinstance(x, Tensor)], level)
    given = [inputs.wrapped.get(id(x), x) for x in leaves]
    positional, named = tree.unflatten(structure, given)
    try:
        out = run_under(level.inner_word(), func, *positional, **named)
        return inputs.give(out)
    finally:
        level.alive = False


class Inputs:
    """The arguments of a functionalized call, and what of them was replaced."""

    def __init__(self, tensors: Sequence[Tensor], level: FunctionalLevel) -> None:
        self.level = level
        self.storages: dict[int, tuple[Tensor, Storage]] = {}  # by the id of the base
        self.wrapped: dict[int, Tensor] = {}  # by the id of the argument
        self.originals: dict[int, Tensor] = {}  # by the id of the wrapper
        self.owns: dict[int, tuple[Tensor, Own]] = {}  # by the id of the view that begins one
        self.seen: list[Storage] = []  # the memory that the caller sees
        versions = [t.version for t in {id(t): t for t in tensors}.values()]
        for t in tensors:
            if id(t) not in self.wrapped:
                shared = t.version.__class__ is Version and versions.count(t.version) > 1
                self._take(t, shared)

    def _take(self, t: Tensor, shared: bool) -> None:
        """Wrap an argument; arguments that share memory become views of one base."""
        base, chain = self._rooted(t) if shared else (t, ())
        if id(base) not in self.storages:
            self.storages[id(base)] = base, Storage(base)
        storage = self.storages[id(base)][1]
        follows = bool(t.keys & GRAD) or not base.keys & GRAD or own_of(chain) is not None
        wrapper = functional(storage, chain, self.level, t if chain else None, follows)
        self.wrapped[id(t)] = wrapper
        self.originals[id(wrapper)] = t

    def _rooted(self, t: Tensor) -> tuple[Tensor, Chain]:
        """Give the base of a view, and the way from there, as far as it is known."""
        found = last_step(t)
        if found is None:
            return t, ()
        parent, step = found
        base, chain = self._rooted(parent)
        if step.own is not None:
            step = replace(step, own=self._own(t))
        return base, (*chain, step)

    def _own(self, t: Tensor) -> Own:
        """Give the history that begins with a view, one for all views of it."""
        if id(t) not in self.owns:
            own = Own()
            own.value = t
            self.owns[id(t)] = t, own
        return self.owns[id(t)][1]

    def give(self, out: Any) -> Any:
        """Write the arguments that were replaced, and give plain results.

        Raises:
            MutationError: one shares memory with another in a way that was not known.
        """
        for base, storage in self.storages.values():
            if storage.value is not base:
                self._check_alone(base)
        for base, storage in self.storages.values():
            if storage.value is not base:
                now = word()
                hidden = storage.hidden or not storage.recorded
                run_under(now.without_grad if hidden else now, copy_, base, storage.value)
                storage.value = base
        for view, own in self.owns.values():
            own.settle(view, given=True)
        leaves = {id(x): x for x in tree.leaves(out) if self.level.owns(x)}
        self.seen = [x.payload.storage for x in leaves.values()]
        self.seen += [storage for _, storage in self.storages.values()]
        return tree.map_leaves(self._given, out)

    def _check_alone(self, written: Tensor) -> None:
        """Refuse a write that another argument has not seen."""
        if any(base is not written and meet(base, written) for base, _ in self.storages.values()):
            raise MutationError(
                "a functionalized function writes an argument whose memory another argument "
                "has too, and it is not known how",
                declared="arguments that share memory are one tensor, or views of one tensor",
                seen=f"two tensors, one of shape {tuple(written.shape)} and written",
                fix="take the view inside of the function, or give one of them as a copy "
                "(.clone())",
            )

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
        value = record.given()
        return clone(value) if self.level.copy_views and record.chain else value
