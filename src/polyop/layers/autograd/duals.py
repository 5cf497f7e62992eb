"""Tensors that carry a tangent, and the level of a running `func.jvp`, whose they are.

An operator on such tensors runs on the values inside, and the operator's rule
(`tangents.py`) gives the tangents of the results, by operators on tensors of
the level below. So batches, traces, gradients and further tangents need no
code here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import LIFTED, NO_GRAD, NUMPY
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import AUTOGRAD, Word, set_word, word
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.resolve import resolve
from polyop.dispatch.results import tensors_in
from polyop.errors import AutogradError
from polyop.layers.autograd.aliases import note_views, write
from polyop.layers.autograd.lifted import Lifted, LiftingLevel
from polyop.layers.autograd.tangents import AtOnce, tangent_rule
from polyop.layers.levels import tensor_places
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor
from polyop.warn import warn_constant

Push = tuple[tuple[int, ...], Callable[..., Any], bool]


def _push(op: OpOverload) -> Push | None:
    """Give what calls on plain arrays need of an operator, if its rule knows such calls.

    That is where its tensors are, the rule, and whether the result may be a view.
    """
    rule, places = tangent_rule(op), tensor_places(op)
    forms = [kind for kind, _ in result_forms(op._schema)]
    if places is None or forms not in (["new"], ["view"]) or not isinstance(rule, AtOnce):
        return None
    if op._schema.is_mutable:
        return None
    return places, rule.at_once, forms == ["view"]


_READS = {"numpy", "data_ptr", "tolist", "pickle"}
_CONSTANTS = {"float", "complex"}


class Dual(Lifted):
    """The payload of a tensor with a tangent.

    Attributes:
        tangent: of the shape and dtype of `value`; None is zero.
    """

    __slots__ = ("tangent",)
    tangent: Tensor | None

    def look(self, what: str) -> Any:
        """Look at the data; taking them as an array would lose the tangent."""
        if what in _READS and self.tangent is not None and self.level.alive:
            raise AutogradError(
                f"{what}() of a tensor in {self.level.kind} would lose its tangent",
                fix="compute by operators, or say so with .detach()",
            )
        found = super().look(what)
        if what in _CONSTANTS and self.tangent is not None and self.level.alive:
            warn_constant(what)
        return found

    def __repr__(self) -> str:
        return f"<jvp level {self.level.depth}: {self.value!r}, tangent {self.tangent!r}>"


class JvpLevel(LiftingLevel):
    """One running forward derivative."""

    kind = "func.jvp"
    __slots__ = ("inputs", "loans")
    inputs: Sequence[Tensor]
    loans: Any

    def inner_word(self) -> Word:
        """Give the word of the function."""
        return self.watched_word(self.outer)

    def end(self) -> None:
        """Note that the transform is over; inputs are let go at once, not by a collection."""
        super().end()
        self.inputs = ()

    def below_of(self, now: Word) -> Word:
        """Make the word below."""
        exclude = now.exclude - AUTOGRAD | self.outer.exclude & AUTOGRAD
        return now.but(levels=now.levels[: self.depth], exclude=exclude)

    def run(self, op: OpOverload, args: Sequence[Any]) -> Any:
        """Run a call on the values, and its rule on the tangents."""
        cached = self._below
        below = cached[1] if cached is not None and cached[0] is word() else self.below()
        done = None if below & ~NO_GRAD else self._run_plain(op, args, below)
        if done is not None:
            return done
        if op._schema.is_mutable:
            return write(self, op, args, self.is_input)
        tangents = [self.tangent(a) for a in args]
        outer = word()
        try:
            set_word(below)
            values = [self.peel(a) for a in args]
            if all(t is None for t in tangents):
                out = dispatch(op, values)
                results = self.wrap_all(out)
            else:
                out, slopes = tangent_rule(op)(values, tangents)
                results = self.wrap_with(out, slopes)
        finally:
            set_word(outer)
        note_views(self, op, args, out, results)
        return results

    def _run_plain(self, op: OpOverload, args: Sequence[Any], below: Word) -> Any:
        """Run a call where all values and tangents are plain arrays; else give None."""
        try:
            push = op.notes["pushed"]
        except KeyError:
            push = op.note("pushed", _push)
        if push is None:
            return None
        places, rule, views = push
        code, moves, values, tangents = 0, False, [*args], [None] * len(args)
        for i in places:
            x = args[i]
            if x is None:
                continue
            if x.keys & LIFTED and x.payload.level is self:
                record = x.payload
                values[i] = x = record.value
                tangent = record.tangent
                if tangent is not None:
                    tangents[i], moves = tangent, True
                    code |= tangent.keys
            code |= x.keys
        if code != NUMPY:
            return None
        code |= below
        call = op.memo.get(code) or resolve(op, code)
        outer = word()
        try:
            set_word(below)
            out, slopes = rule(call, values, tangents) if moves else (call(*values), (None,))
        finally:
            set_word(outer)
        result = self.wrap(out, slopes[0])
        if views:
            note_views(self, op, args, out, result)
        return result

    # -- wrapping -------------------------------------------------------------

    def tangent(self, value: Any) -> Any:
        """Give the tangent of an argument, mirrored; None if it has none at all."""
        if isinstance(value, Tensor):
            return value.payload.tangent if self.owns(value) else None
        if value is None or isinstance(value, (int, float, str, complex)):
            return None
        if value.__class__ is list or value.__class__ is tuple:
            found = [self.tangent(x) for x in value]
            return value.__class__(found) if any(t is not None for t in found) else None
        if not any(self.tangent(t) is not None for t in tensors_in((value,))):
            return None
        return tree.map_leaves(self.tangent, value)

    def wrap(self, value: Tensor, tangent: Tensor | None = None) -> Tensor:
        """Wrap a tensor with its tangent."""
        record = Dual()
        record.value, record.level, record.tangent, record.views = value, self, tangent, None
        t = Tensor()
        t.payload, t.keys, t.version = record, LIFTED, 0
        return t

    def wrap_with(self, out: Any, tangents: Sequence[Any]) -> Any:
        """Wrap results, with their tangents in a row."""
        if isinstance(out, Tensor):
            return self.wrap(out, tangents[0])
        rest = iter(tangents)

        def one(x: Any) -> Any:
            if x.__class__ is list or x.__class__ is tuple:
                return x.__class__(map(one, x))
            if x is None:  # no leaf, so it has no place in the row
                return None
            if not isinstance(x, Tensor) and tree.children(x)[1] is not None:
                return tree.map_leaves(one, x)
            tangent = next(rest)
            return self.wrap(x, tangent) if isinstance(x, Tensor) else x

        return one(out)

    def slope(self, value: Tensor) -> Tensor:
        """Give the tangent of a result, zeros if it has none."""
        found = self.tangent(value)
        tangent: Tensor = ON_TENSORS["zeros_like"](self.peel(value)) if found is None else found
        return tangent

    def follows(self, tensor: Tensor) -> bool:
        """Tell whether a tensor has a tangent here."""
        return self.tangent(tensor) is not None

    def is_input(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is an input, which nobody may write."""
        return any(t is tensor for t in self.inputs)


class RecordedLevel(JvpLevel):
    """One whose tangents are recorded, and values saved there: inference mode is off below."""

    __slots__ = ("tape",)
    tape: LiftingLevel

    def __init__(self, tape: LiftingLevel) -> None:
        super().__init__()
        self.tape = tape

    def below_of(self, now: Word) -> Word:
        """Make the word below."""
        return super().below_of(now).but(inference=False)

    def wrap(self, value: Tensor, tangent: Tensor | None = None) -> Tensor:
        """Wrap a tensor; what computes values and tangents at once put both on the tape."""
        return super().wrap(self.tape.peel(value), tangent)
