"""The level of a running gradient, whose tensors record how they came to be.

Its inputs are wrapped; an operator on wrapped tensors runs on what is inside,
where outer levels see it, and the wrapper of its result gets the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import ANOMALY, GRAD, LIFTED
from polyop.dispatch.context import AUTOGRAD, Word, set_word, word
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.resolve import resolve
from polyop.layers.autograd.aliases import note_views, write
from polyop.layers.autograd.anomaly import note_results
from polyop.layers.autograd.lifted import Lifted, LiftingLevel
from polyop.layers.autograd.node import Node, leaf_node, next_seq
from polyop.layers.autograd.recorders import recorder_of
from polyop.layers.levels import tensor_places
from polyop.tensor.tensor import Tensor


class GradLevel(LiftingLevel):
    """One running gradient."""

    kind = "func.grad"
    #: Whether it records what runs under `no_grad` too.
    always: ClassVar[bool] = False
    #: What it took over from outside (`loans.py`); unset where it takes nothing.
    __slots__ = ("loans",)
    loans: Any

    def inner_word(self) -> Word:
        """Give the word of the function: recorded, whatever is so outside."""
        outer = self.outer
        return self.watched_word(outer if outer.grad else outer.with_grad)

    def below_of(self, now: Word) -> Word:
        """Make the word below, where grad mode is what it is outside."""
        # A kernel that goes on below autograd does so for its own level only.
        exclude = now.exclude - AUTOGRAD | self.outer.exclude & AUTOGRAD
        return now.but(
            levels=now.levels[: self.depth], grad=now.grad and self.outer.grad, exclude=exclude
        )

    def run(self, op: OpOverload, args: Sequence[Any]) -> Any:
        """Run a call on what is inside the wrappers, and record it."""
        if op._schema.is_mutable:
            return write(self, op, args, self.is_input)
        now = word()
        # Found before the call, which may take the operator's rules away.
        found = recorder_of(op) if now.grad else None
        before = next_seq() if now & ANOMALY else 0
        try:
            set_word(self.below())
            values, out = self.run_below(op, args)
            results = self.wrap_all(out)
            if found is not None:
                found.record(
                    args, values, out, results, kept=True, node_of=self.node_of, plain=False
                )
                if before:
                    note_results(results, before)
        finally:
            set_word(now)
        note_views(self, op, args, out, results)
        return results

    def run_below(self, op: OpOverload, args: Sequence[Any]) -> tuple[list[Any], Any]:
        """Call an operator on what is inside the wrappers; give that, and what comes of it."""
        try:
            places = op.notes["lowered"]
        except KeyError:
            places = op.note("lowered", _places)
        if places is None:
            values = [*map(self.peel, args)]
            return values, dispatch(op, values)
        code, values = int(word()), [*args]  # as `dispatch` does it, in the same loop
        for i in places:
            x = args[i]
            if x is not None:
                if x.keys & LIFTED and x.payload.level is self:
                    values[i] = x = x.payload.value
                code |= x.keys
        return values, (op.memo.get(code) or resolve(op, code))(*values)

    def node_of(self, tensor: Tensor) -> Node | None:
        """Give the node of a tensor of this level."""
        if tensor.keys & LIFTED and tensor.payload.level is self and tensor.keys & GRAD:
            found: Node = tensor.grad_node
            return found
        return None

    def follows(self, tensor: Tensor) -> bool:
        """Tell whether what is computed now from a tensor gets a history here."""
        return (word().grad or self.always) and self.node_of(tensor) is not None

    def is_input(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is an input, which nobody may write."""
        return tensor.keys & GRAD != 0 and tensor.grad_node.seq == 0

    def wrap(self, value: Tensor) -> Tensor:
        """Wrap a tensor."""
        record = Lifted()
        record.value, record.level, record.views = value, self, None
        t = Tensor()
        t.payload, t.keys, t.version = record, LIFTED, 0
        return t

    def watched(self, value: Tensor) -> Tensor:
        """Wrap an input, as a leaf."""
        t = self.wrap(value)
        t.keys |= GRAD
        t.grad_node = leaf_node(value.dtype)
        return t


class LinearLevel(GradLevel):
    """The level of a forward derivative that is a transposed record: grad mode says nothing to it.

    Outer levels, and autograd, see a call in the mode that it was made in.

    Args:
        writable: whether its inputs may be written.
    """

    always = True
    __slots__ = ("_hiding", "_writable")

    def __init__(self, *, writable: bool) -> None:
        super().__init__()
        self._writable = writable
        self._hiding = False

    def is_input(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is an input, which nobody may write."""
        return not self._writable and super().is_input(tensor)

    def below_of(self, now: Word) -> Word:
        """Make the word below; what was made in inference mode is recorded here, so it is off."""
        made = super().below_of(now)
        return made.but(grad=made.grad and not self._hiding, inference=False)

    def run(self, op: OpOverload, args: Sequence[Any]) -> Any:
        """Run a call on what is inside the wrappers, and record it."""
        if word().grad:
            return super().run(op, args)
        with self.watching():
            return super().run(op, args)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record in any mode; below, it is what it was."""
        now, hiding = word(), self._hiding
        self._hiding = hiding or not now.grad
        try:
            set_word(now.but(grad=True))  # of its own: the word below is cached for it
            yield
        finally:
            set_word(now)
            self._hiding = hiding


def _places(op: OpOverload) -> tuple[int, ...] | None:
    """Give the places of tensors, if nothing else of a call's arguments is in its code."""
    return None if op.objects else tensor_places(op)
