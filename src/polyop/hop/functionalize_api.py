"""What a functionalization rule gets: one API, whatever brought the call here (S110, S169).

A call is functionalized at the key Functionalize, by a mode, or by the
transform `func.functionalize`. All three work on functional tensors of one
level; they differ in where the level comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from polyop import tree
from polyop.dispatch.bits import FUNCTIONAL
from polyop.dispatch.context import under, word
from polyop.dispatch.implementations import TransformType
from polyop.dispatch.infra_modes import ModeKey
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.modes import DispatchMode
from polyop.errors import UsageError, UsageTypeError
from polyop.hop.acting import tensors_of
from polyop.layers.functionalize import functionalize
from polyop.layers.functionalize.level import FunctionalLevel
from polyop.layers.functionalize.storage import Functional
from polyop.tensor.tensor import Tensor

Rule = Callable[..., Any]


class FunctionalTensorMode(DispatchMode):
    """A mode inside which functional tensors stand for tensors that are written."""

    mode_key = ModeKey.FUNCTIONAL

    def __init__(self) -> None:
        self.level = FunctionalLevel(copy_views=False)

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Go on: the tensors themselves say that they are functional."""
        return op(*args, **(kwargs or {}))


class FunctionalizeAPI:
    """What a rule may do with the functional tensors of one functionalization."""

    __slots__ = ("level",)

    def __init__(self, level: FunctionalLevel) -> None:
        self.level = level

    def wrap_tensors(self, args: Any) -> Any:
        """Make a functional tensor of each plain one in a tree; of one that comes twice, one."""
        made: dict[int, Any] = {}

        def wrapped(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or self.level.owns(leaf):
                return leaf
            if id(leaf) not in made:
                made[id(leaf)] = self.level.wrap(leaf)
            return made[id(leaf)]

        return tree.map_leaves(wrapped, args)

    def unwrap_tensors(self, args: Any) -> Any:
        """Give the current value of each functional tensor in a tree."""
        return tree.map_leaves(self.level.peel, args)

    def functionalize(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Give a function that writes nothing it made."""
        remove = "mutations_and_views" if self.level.copy_views else "mutations"
        return functionalize(fn, remove=remove)

    def redispatch_to_next(self) -> AbstractContextManager[Any]:
        """Take this functionalization off for a block."""
        return under(self.level.below())

    def replace(self, args: Any, new: Any) -> None:
        """Give functional tensors new values, and so all that share memory with them.

        Raises:
            UsageTypeError: a tensor is not functional here, or a value no tensor.
            UsageError: not one value for each, or one of another shape or dtype.
        """
        tensors, values = tree.leaves(args), [self._value(v) for v in tree.leaves(new)]
        if len(tensors) != len(values):
            raise UsageError(
                "each tensor is replaced by one value",
                declared=f"{len(tensors)} values",
                seen=f"{len(values)}",
            )
        for record, value in [(self._record(t), v) for t, v in zip(tensors, values, strict=True)]:
            _check_fits(record, value)
        for t, value in zip(tensors, values, strict=True):
            t.payload.replace(value)

    def commit_update(self, args: Any) -> None:
        """Let aliases see what was replaced; here they do at once."""
        for t in tree.leaves(args):
            self._record(t)

    def sync(self, args: Any) -> None:
        """Bring functional tensors up to date with writes to their aliases."""
        for t in tree.leaves(args):
            self._record(t).value()

    def mark_mutation_hidden_from_autograd(self, args: Any) -> None:
        """Let the write that is left at the end be unseen by autograd."""
        for t in tree.leaves(args):
            self._record(t).storage.hidden = True

    def _record(self, t: Any) -> Functional:
        if not self.level.owns(t):
            raise UsageTypeError(
                "this is no functional tensor of the functionalization that runs",
                seen=repr(t)[:80],
                fix="give the arguments that the rule got, or what wrap_tensors gave",
            )
        record: Functional = t.payload
        return record

    def _value(self, value: Any) -> Tensor:
        found = self.level.peel(value)
        if not isinstance(found, Tensor):
            raise UsageTypeError("a new value is a Tensor", seen=type(value).__name__)
        return found


def _check_fits(record: Functional, value: Tensor) -> None:
    if tuple(value.shape) != tuple(record.shape) or value.dtype != record.dtype:
        raise UsageError(
            "a new value has the shape and the dtype of the tensor that it replaces",
            declared=f"{tuple(record.shape)} {record.dtype}",
            seen=f"{tuple(value.shape)} {value.dtype}",
            fix="reshape, or cast with .astype, before it replaces",
        )


def forms_of(fn: Rule) -> dict[Any, Rule]:
    """Give the three forms of a functionalization rule, by what they are registered for."""

    def at_key(*args: Any, **kwargs: Any) -> Any:
        return fn(FunctionalizeAPI(_level_of(args, kwargs)), *args, **kwargs)

    def in_mode(mode: FunctionalTensorMode, /, *args: Any, **kwargs: Any) -> Any:
        if any(type(x) is not Tensor for x in tensors_of(args, kwargs)):
            return NotImplemented
        return fn(FunctionalizeAPI(mode.level), *args, **kwargs)

    def in_transform(interpreter: Any, /, *args: Any, **kwargs: Any) -> Any:
        return fn(FunctionalizeAPI(interpreter.level), *args, **kwargs)

    return {
        DispatchKey.Functionalize: at_key,
        FunctionalTensorMode: in_mode,
        TransformType.Functionalize: in_transform,
    }


def _level_of(args: Any, kwargs: Any) -> FunctionalLevel:
    """Give the functionalization that the tensors of a call belong to, or the one that runs."""
    tensors = [x for x in tree.leaves((args, kwargs)) if isinstance(x, Tensor)]
    levels = [t.payload.level for t in tensors if t.keys & FUNCTIONAL] or [word().functional]
    found: FunctionalLevel | None = max(levels, key=lambda x: x.depth if x else -1)
    if found is None:
        raise UsageError("no functionalization runs", fix="use func.functionalize")
    return found
