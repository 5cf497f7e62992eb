"""The level of a running gradient, whose tensors record how they came to be.

Its inputs are wrapped; an operator on wrapped tensors runs on what is inside,
where outer levels see it, and the wrapper of its result gets the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import ANOMALY, GRAD, LIFTED
from polyop.dispatch.context import AUTOGRAD, Word, reset_word, set_word, word
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.resolve import resolve
from polyop.layers.autograd.aliases import Views, note_views, write
from polyop.layers.autograd.anomaly import note_results
from polyop.layers.autograd.node import Node, leaf_node, next_seq
from polyop.layers.autograd.recorders import recorder_of
from polyop.layers.levels import Level, tensor_places
from polyop.tensor.tensor import Tensor


class Lifted:
    """The payload of a tensor that a gradient level watches.

    Attributes:
        value: the tensor below.
        level: whose it is.
        views: the living views of its memory, if it owns it and has any.
    """

    __slots__ = ("level", "value", "views")
    value: Tensor
    level: GradLevel
    views: Views | None

    @property
    def shape(self) -> Any:
        """The shape of the tensor below."""
        return self.value.payload.shape

    @property
    def dtype(self) -> Any:
        """The dtype of the tensor below."""
        return self.value.payload.dtype

    @property
    def device(self) -> Any:
        """The device of the tensor below."""
        return self.value.device

    @property
    def strides(self) -> Any:
        """The strides of the tensor below."""
        return self.value.stride()

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in order."""
        return self.value.is_contiguous()

    @property
    def base(self) -> None:
        """Nothing: a wrapper owns no memory."""
        return

    def look(self, what: str) -> Any:
        """Look at the data of the tensor below."""
        if not self.level.alive:
            self.level.escaped()
        return self.value._data(what)

    def __repr__(self) -> str:
        return f"<grad level {self.level.depth}: {self.value!r}>"


class GradLevel(Level):
    """One running gradient."""

    kind = "func.grad"
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
            return write(self, op, args, _is_leaf)
        now = word()
        # Found before the call, which may take the operator's rules away.
        found = recorder_of(op) if now.grad else None
        before = next_seq() if now & ANOMALY else 0
        token = set_word(self.below())
        try:
            values, out = self.run_below(op, args)
            results = self.wrap_all(out)
            if found is not None:
                found.record(
                    args, values, out, results, kept=True, node_of=self.node_of, plain=False
                )
                if before:
                    note_results(results, before)
        finally:
            reset_word(token)
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

    def peel(self, value: Any) -> Any:
        """Take this level's wrapper off, wherever it is in a value."""
        if isinstance(value, Tensor):
            own = value.keys & LIFTED and value.payload.level is self
            return value.payload.value if own else value
        if value.__class__ is list or value.__class__ is tuple:
            return value.__class__(map(self.peel, value))
        if value is None or isinstance(value, (int, float, str, complex)):
            return value
        return tree.map_leaves(lambda x: self.peel(x) if isinstance(x, Tensor) else x, value)

    def wrap(self, value: Tensor) -> Tensor:
        """Wrap a tensor."""
        record = Lifted()
        record.value, record.level, record.views = value, self, None
        t = Tensor()
        t.payload, t.keys, t.version = record, LIFTED, 0
        return t

    def wrap_all(self, out: Any) -> Any:
        """Wrap results."""
        if isinstance(out, Tensor):
            return self.wrap(out)
        if out.__class__ is list or out.__class__ is tuple:
            return out.__class__(map(self.wrap_all, out))
        if out is None or isinstance(out, (int, float, str, complex)):
            return out
        return tree.map_leaves(lambda x: self.wrap(x) if isinstance(x, Tensor) else x, out)

    def watched(self, value: Tensor) -> Tensor:
        """Wrap an input, as a leaf."""
        t = self.wrap(value)
        t.keys |= GRAD
        t.grad_node = leaf_node(value.dtype)
        return t


def _places(op: OpOverload) -> tuple[int, ...] | None:
    """Give the places of tensors, if nothing else of a call's arguments is in its code."""
    return None if op.objects else tensor_places(op)


def _is_leaf(tensor: Tensor) -> bool:
    """Tell whether a tensor is an input of its level."""
    return tensor.keys & GRAD != 0 and tensor.grad_node.seq == 0
