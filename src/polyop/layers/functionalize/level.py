"""What functionalization does with a call: nothing is written, values are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bind import code_of, dispatch
from polyop.dispatch.bits import FUNCTIONAL, FUNCTIONALIZE, GRAD, TENSOR_BITS, WRAPPED
from polyop.dispatch.body import Form, Number, result_forms
from polyop.dispatch.context import PLAIN, Word, run_under, word
from polyop.dispatch.counts import bump_in
from polyop.dispatch.keys import DispatchKey, autograd_key_for
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.resolve import Way, backends_of
from polyop.dispatch.results import tensors_in
from polyop.dispatch.table import Reason
from polyop.errors import ArgumentError, MutationError
from polyop.layers.functionalize.shared import is_shared, write_shared
from polyop.layers.functionalize.storage import (
    Functional,
    Step,
    Storage,
    Unknown,
    functional,
    own_of,
    step_of,
)
from polyop.layers.functionalize.twin import functional_twin, without
from polyop.layers.levels import Level
from polyop.layers.memory import meet
from polyop.layers.own_kernels import own_kernel, own_rule
from polyop.ops.inplace import INPLACE_TWINS, copy_
from polyop.ops.rounding import astype, clone
from polyop.schema.tags import Tag
from polyop.tensor.storage import share
from polyop.tensor.tensor import Tensor


class FunctionalLevel(Level):
    """A running functionalization."""

    kind = "func.functionalize"
    escape_error = MutationError
    __slots__ = ("asked", "copy_views")

    def __init__(self, copy_views: bool) -> None:
        super().__init__()
        self.copy_views = copy_views
        #: The memory of which a view or a copy was taken, as its layout said, and when.
        self.asked: list[tuple[Storage, int]] = []

    def goes_by_layouts(self) -> bool:
        """Tell whether something was written of which a view might have been a copy, or back."""
        return any(storage.generation > before for storage, before in self.asked)

    def inner_word(self) -> Word:
        """Give the word of the function: tensors that it makes are functional too."""
        levels = (*self.outer.levels, self)
        return self.outer.but(levels=levels, functional=self, below=False)

    def below_of(self, now: Word) -> Word:
        """Make the word below."""
        return now.but(levels=now.levels[: self.depth], functional=self.outer.functional)

    def run(self, op: OpOverload, args: Sequence[Any]) -> Any:
        """Run a call on current values, and wrap what is new."""
        if op._can_decompose() and _is_decomposed(op, args):
            n = len(op._schema.positional)
            names = [a.name for a in op._schema.keyword_only]
            return op.decompose(*args[:n], **dict(zip(names, args[n:], strict=True)))
        return run_under(self.below(), self._run, op, args)

    def _run(self, op: OpOverload, args: Sequence[Any]) -> Any:
        values = [self.peel(a) for a in args]
        if op._schema.is_mutable:
            return self._write(op, args, values)
        result = dispatch(op, values)
        forms = result_forms(op._schema)
        if len(forms) == 1:
            return self._wrap(op, args, values, (result, forms[0]))
        pairs = enumerate(zip(result or (), forms, strict=True))
        done = [self._wrap(op, args, values, pair, (Number(i),)) for i, pair in pairs]
        return tuple(done) if forms else None

    def owns(self, value: Any) -> bool:
        """Tell whether a value is a functional tensor of this level."""
        return (
            isinstance(value, Tensor)
            and value.payload.__class__ is Functional
            and value.payload.level is self
        )

    def peel(self, value: Any) -> Any:
        """Put current values in the place of functional tensors, wherever they are."""
        if isinstance(value, Tensor):
            return value.payload.value() if self.owns(value) else value
        if value.__class__ is list:
            return [self.peel(x) for x in value]
        if value is None or isinstance(value, (int, float, str, complex)):
            return value
        return tree.map_leaves(lambda x: self.peel(x) if isinstance(x, Tensor) else x, value)

    def wrap(self, value: Any) -> Any:
        """Wrap new tensors, each in a storage of its own."""
        if isinstance(value, Tensor):
            return functional(Storage(value), (), self)
        if value.__class__ is list or value.__class__ is tuple:
            return value.__class__([self.wrap(x) for x in value])
        return value

    # -- views ----------------------------------------------------------------

    def _wrap(
        self,
        op: OpOverload,
        args: Sequence[Any],
        values: Sequence[Any],
        given: tuple[Any, Form],
        path: tuple[int, ...] = (),
    ) -> Any:
        """Wrap one result, by what it is; the path says which of several."""
        result, (kind, position) = given
        if kind not in {"view", "views"} or not self.owns(args[position]):
            return self.wrap(result)
        others = tuple(None if i == position else v for i, v in enumerate(values))
        if kind == "views":
            steps = [step_of(op, others, position, (*path, i)) for i in range(len(result))]
            return [self._view(args[position], *pair) for pair in zip(steps, result, strict=True)]
        return self._view(args[position], step_of(op, others, position, path), result)

    def _view(self, base: Tensor, step: Step, result: Tensor) -> Tensor:
        record: Functional = base.payload
        maybe = Tag.maybe_aliasing_or_mutating in step.op.tags
        laid_out = record.as_laid_out() if maybe or step.op.is_builtin else None
        shown = result if laid_out is None else run_under(PLAIN, step.take, laid_out)
        if maybe:
            self.asked.append((record.storage, record.storage.generation))
        if maybe and getattr(shown, "view_of", None) is None:
            # No memory is shared after all; what the new values share is not to be seen.
            fresh: Tensor = self.wrap(result if shown is result else clone(result))
            self.asked.append((fresh.payload.storage, 0))
            return fresh
        value = clone(result) if self.copy_views else result
        follows = step.own is not None or (word().grad and record.follows())
        t = functional(record.storage, (*record.chain, step), self, value, follows)
        t.payload.layout = tuple(shown.stride())
        t.version = share(base)
        others = tuple(v for i, v in enumerate(step.args) if i != step.position)
        t.view_of = (base, step.op, (*others, *step.path))
        return t

    # -- writes ---------------------------------------------------------------

    def _write(self, op: OpOverload, args: Sequence[Any], values: Sequence[Any]) -> Any:
        targets = [
            t
            for i, argument in enumerate(op._schema.arguments)
            if argument.is_write
            for t in tensors_in(args[i])
        ]
        ours = [self.owns(t) for t in targets]
        if not any(ours):
            # What the function only closes over, or leaves out, is not ours to replace.
            forms, out = result_forms(op._schema), dispatch(op, list(values))
            every = [out] if len(forms) == 1 else out
            return self._given_back(op, args, [every[i] for i in without(forms)])
        shared = is_shared(op, args)
        if not all(ours):
            _refuse_mixed(op, [t for t in targets if not self.owns(t)], values, shared=shared)
        if shared:
            done = write_shared(op, args, values)
            for t in targets:
                bump_in(op, t)
            return self._given_back(op, args, [done[i] for i in without(result_forms(op._schema))])
        if word().grad:
            for t in filter(self.owns, targets):
                _refuse_unseen(op, t.payload)
        results, news = self._new_values(op, values)
        for t, new in zip(targets, news, strict=True):
            _check_fits(op, t, new)
            fitting = new if new.dtype == t.dtype else astype(new, t.dtype)
            if self.owns(t):
                bump_in(op, t)
                t.payload.replace(fitting)
            else:
                copy_(t, fitting)
        return self._given_back(op, args, results)

    def _new_values(
        self, op: OpOverload, values: Sequence[Any]
    ) -> tuple[Sequence[Any], list[Tensor]]:
        twin = INPLACE_TWINS.get(op.name())
        if twin is not None:
            return (), [dispatch(twin, list(values))]
        twin = functional_twin(op)
        found = dispatch(twin, list(values))
        found = [found] if len(twin._schema.returns) == 1 else list(found)
        fresh = len(without(result_forms(op._schema)))
        return found[:fresh], list(tensors_in(found[fresh:]))

    def _given_back(self, op: OpOverload, args: Sequence[Any], fresh: Sequence[Any]) -> Any:
        rest = iter(fresh)
        done = [
            args[position] if kind == "argument" else self._result(op, args, next(rest), position)
            for kind, position in result_forms(op._schema)
        ]
        if not done:
            return None
        return done[0] if len(done) == 1 else tuple(done)

    def _result(self, op: OpOverload, args: Sequence[Any], value: Any, position: int) -> Any:
        """Wrap a result of an operator that writes; a view of an argument is known as one."""
        if position < 0 or not self.owns(args[position]):
            return self.wrap(value)
        if value.__class__ in {list, tuple}:
            return [self._result(op, args, x, position) for x in value]
        record: Functional = args[position].payload
        t = functional(record.storage, (*record.chain, Unknown(op)), self, value)
        t.version = share(args[position])
        return t


def _is_decomposed(op: OpOverload, args: Sequence[Any]) -> bool:
    """Tell whether a call runs what the operator is made of, as a plain one does (S86).

    A view does in any case: what is written through it is put back by the views it is made of.
    """
    if op.is_view:
        return True
    backends = backends_of(code_of(args))
    key = autograd_key_for(max(backends)) if backends else DispatchKey.Undefined
    return op.table[key].reason is Reason.MATH


def _check_fits(op: OpOverload, target: Tensor, new: Tensor) -> None:
    if tuple(new.shape) != tuple(target.shape):
        raise ArgumentError(
            f"the result of {op.name()} cannot be written to its argument",
            op=op._schema,
            declared=f"shape {tuple(target.shape)}",
            seen=f"shape {tuple(new.shape)}",
            fix="use the operator that returns a new tensor",
        )


def _refuse_unseen(op: OpOverload, record: Functional) -> None:
    """Refuse a recorded write to a view that was made under no_grad, as it is refused eagerly."""
    own = own_of(record.chain)
    root = record.storage.value if own is None else own.value
    if root is not None and root.keys & GRAD and not record.follows():
        raise MutationError(
            f"{op.name()} writes a view without history of a tensor that requires grad",
            op=op._schema,
            seen="a view that was made under no_grad",
            source=op.source,
            fix="write under no_grad too, or take the view with grad mode on",
        )


def _refuse_mixed(
    op: OpOverload, outside: Sequence[Tensor], values: Sequence[Any], *, shared: bool
) -> None:
    """Refuse a write to tensors from outside whose memory another argument has too."""
    given = list(tensors_in(tuple(values)))
    if shared or any(sum(meet(t, x) for x in given) > 1 for t in outside):
        raise MutationError(
            f"{op.name()} writes a tensor of the functionalized function and one from outside of "
            "it, and gets memory twice",
            op=op._schema,
            source=op.source,
            fix="give every written tensor to the function as an argument",
        )


# -- the layer ----------------------------------------------------------------


class FunctionalLayer:
    """Takes calls with functional tensors, and calls that make tensors, to their level."""

    def handler(self, way: Way) -> Handler | None:
        """Give the handler, if there is something functional about the call."""
        if way.code & FUNCTIONAL:
            own = own_kernel(way, DispatchKey.Functionalize)
            return _by_deepest(way.op, own_rule(way, FUNCTIONAL, own))
        if way.code & FUNCTIONALIZE and not way.code & TENSOR_BITS:
            return _making(way)
        return None


def _by_deepest(op: OpOverload, own: Handler | None) -> Handler:
    def run(*args: Any) -> Any:
        levels = [t.payload.level for t in tensors_in(args) if t.keys & WRAPPED]
        level: Level = max(levels, key=lambda x: x.depth)
        if not level.alive:
            level.escaped(op)
        if own is not None and level.kind == FunctionalLevel.kind:
            return own(*args)
        return level.run(op, args)

    return run


def _making(way: Way) -> Handler:
    """Make the handler of a call without tensors, whose results the level takes in."""
    op, below = way.op, way.handler()

    def run(*args: Any) -> Any:
        level = word().functional
        inner = word().levels[level.depth + 1 :]
        if Tag.nondeterministic_seeded in op.tags and any(x.kind == "vmap" for x in inner):
            return below(*args)  # the vmap inside says how to draw
        return level.run(op, args)

    return run
