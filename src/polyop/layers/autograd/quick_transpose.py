"""The transposed gradient of an author's operator, where all tensors are plain arrays.

`transpose.py` records the gradient at a level of its own, so that any transform may be around.
Where none is, the graph of a plain `backward` says the same for a fraction of the time: the
gradient runs at a probe that requires grad, and the engine goes back from the tangents to it.

A look at data may be one at the probe's, which say nothing. So while the gradient runs, any look
stops it, and the level decides: it knows which tensors the probe is in. It also decides what to say
of a gradient that cannot be transposed. The operator itself runs once in each case.

The gradient of an operator that its author calls pointwise is diagonal, and runs on the tangents.
So does any gradient of one tangent of the result's shape: the tangent is the probe. Where all that
was recorded on its way are products, quotients and sums of equal shape (`DIAGONAL`), the gradient
is its own transpose, and what ran is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any, NamedTuple, NoReturn

import numpy as np

from polyop.dispatch.bits import GRAD, NUMPY
from polyop.dispatch.context import Word, set_word, word
from polyop.dispatch.operator import Handler, OpOverload
from polyop.errors import MutationError, PolyopError
from polyop.layers.autograd.arrays import send
from polyop.layers.autograd.author import AuthorRecorder
from polyop.layers.autograd.context import Context
from polyop.layers.autograd.engine import owned_array
from polyop.layers.autograd.mirror import make_spec
from polyop.layers.autograd.node import SUBCLASS_NODES, Node, edges, leaf_node, next_seq
from polyop.layers.autograd.recorders import FormulaRecorder, recorder_of
from polyop.layers.autograd.transpose import Called, at_a_level
from polyop.layers.rule_notes import note_rule
from polyop.ops.define import ON_TENSORS
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, is_differentiable, of_array

Tangents = Sequence[Any]


class Looked(BaseException):
    """Somebody looks at data; no author's `except Exception` is to keep it."""


class Probing:
    """Stands for what records calls, while a gradient runs at a probe.

    Attributes:
        last: another object after each look of any thread; an author may catch what it raises.
    """

    knows_layouts = True

    def __init__(self) -> None:
        self.last = object()

    def look(self, tensor: Any, what: str) -> NoReturn:
        """Stop the gradient."""
        self.last = object()
        raise Looked

    def note_failure(self, error: Exception) -> None:
        """Leave it to the gradient: nothing is recorded of it."""


#: The bits of a plain tensor with a history.
_RECORDED = NUMPY | GRAD
PROBING = Probing()
#: Real operators that give each element of one shape from its own, by the arguments that they are
#: linear in together.
DIAGONAL: dict[str, tuple[tuple[int, ...], ...]] = {
    "core::negative": ((0,),),
    "core::multiply": ((0,), (1,)),
    "core::multiply.Scalar": ((0,),),
    "core::multiply.ScalarTensor": ((1,),),
    "core::divide": ((0,),),
    "core::divide.Scalar": ((0,),),
    "core::add": ((0, 1),),
    "core::subtract": ((0, 1),),
}


class AuthorTransposed:
    """The rule of an operator with an author's gradient and no tangent."""

    def __init__(self, op: OpOverload, recorder: AuthorRecorder, who: Called, rule: Any) -> None:
        self.op = op
        self.recorder = recorder
        self.who = who
        self.rule = rule
        self.diagonal = Tag.pointwise in op.tags

    def __call__(self, values: Sequence[Any], tangents: Tangents) -> tuple[Any, Sequence[Any]]:
        """Run the operator, and its gradient, transposed at a level."""
        found: tuple[Any, Sequence[Any]] = self.rule(values, tangents)
        return found

    def at_once(
        self, call: Handler, values: Sequence[Any], tangents: Tangents
    ) -> tuple[Any, Sequence[Any]]:
        """Do the same where all tensors are plain arrays, and nobody watches."""
        out = call(*values)
        if not is_differentiable(out.payload.dtype):
            return out, (None,)
        recorder = self.recorder
        ctx = Context()
        ctx.needs_input_grad = tuple([t is not None for t in tangents])
        ctx._node = recorder  # who runs, in errors
        if recorder.setup is not None:
            outer = word()
            try:
                set_word(outer.without_grad)
                recorder.set_up(ctx, values, out)
            finally:
                set_word(outer)
            if id(out) in ctx._without:
                return out, (None,)
        moving = [i for i, t in enumerate(tangents) if t is not None]
        called = Forwarded(self, ctx, values, out, moving)
        slopes = [tangents[i] for i in moving]
        try:
            if self.diagonal and _are_alike(out, slopes):
                return out, (called.along_diagonal(slopes),)
            return out, (called.tangent(slopes),)
        except (Looked, PolyopError):
            return out, called.at_a_level(slopes)


class Forwarded(NamedTuple):
    """One call that ran, whose gradient is to be transposed.

    Attributes:
        by: the rule.
        ctx: as the author's `setup_context` filled it.
        values: the arguments; the same tensor may stand at several places, moving at one of them.
        out: the result.
        moving: the places of the arguments that have a tangent.
    """

    by: AuthorTransposed
    ctx: Context
    values: Sequence[Any]
    out: Tensor
    moving: Sequence[int]

    def gradients(self, g: Tensor) -> list[Tensor | None]:
        """Run the gradient, and give what it says of each argument that has a tangent.

        Raises:
            Looked: it is not in the plainest form.
        """
        values, recorder = self.values, self.by.recorder
        try:
            given = recorder.backward(self.ctx.running(recorder), g)
        except Exception as error:
            note_rule(error, recorder.op, "backward")
            raise
        given = given if given.__class__ is tuple else (given,)
        if len(given) != len(values):
            raise Looked
        for value, d in zip(values, given, strict=True):
            if d is not None and not _fits(d, value):
                raise Looked
        return [given[i] for i in self.moving]

    def along_diagonal(self, tangents: Sequence[Tensor]) -> Tensor | None:
        """Run the gradient on the tangents: a diagonal matrix is its own transpose."""
        total = None
        for i, tangent in enumerate(tangents):
            try:
                d = self.gradients(_guarded(tangent.payload))[i]
            except (ValueError, MutationError):  # it writes to what it gets: a copy, then
                d = self.gradients(of_array(tangent.payload.copy()))[i]
            if d is not None:
                total = d if total is None else ON_TENSORS["add"](total, d)
        if total is not None and not total.payload.flags.writeable:
            return of_array(total.payload.copy())
        return total

    def tangent(self, tangents: Sequence[Tensor]) -> Tensor | None:
        """Run the gradient at a probe, and go back to it from the tangents.

        Raises:
            Looked: the level is to decide.
        """
        out = self.out
        alone = len(tangents) == 1 and _are_alike(out, tangents)
        probe = of_array(tangents[0].payload if alone else _ones_like(out.payload))
        leaf = leaf_node(probe.payload.dtype)
        probe.keys, probe.grad_node = _RECORDED, leaf
        start, last = next_seq(), PROBING.last
        outer = word()
        try:
            set_word(_probing(outer))
            gradients = self.gradients(probe)
        finally:
            set_word(outer)
        if PROBING.last is not last:
            raise Looked
        d = gradients[0] if alone else None
        if d is not None and _is_diagonal(d, probe):
            array = d.payload
            del gradients[:], d  # who else holds the gradient shares the array
            return owned_array(leaf, array)
        return _gone_back(leaf, start, gradients, tangents)

    def at_a_level(self, tangents: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Let a level transpose the gradient, or say why that cannot be."""
        recorder, values = self.by.recorder, self.values
        leaves = {i: leaf_node(values[i].payload.dtype) for i in self.moving}
        specs = [
            make_spec(leaves.get(i), v.payload.shape, v.payload.dtype)
            if isinstance(v, Tensor)
            else None
            for i, v in enumerate(values)
        ]
        twin = of_array(self.out.payload)
        named = list(zip(recorder.names, values, strict=True))
        self.ctx.seal(named, [self.out], [self.out])
        nodes = [*leaves.values()]
        recorder.give_history(self.ctx, specs, tuple(nodes), [self.out], twin)
        return at_a_level(self.by.who, [(twin.grad_node, self.out)], nodes)(tangents, retain=False)


def _guarded(array: Any) -> Tensor:
    """Give the caller's tangent so that nobody can write to it."""
    view = array.view()
    view.flags.writeable = False
    return of_array(view)


def _fits(d: Any, value: Any) -> bool:
    """Tell whether a gradient is a plain tensor of its argument's shape and dtype."""
    if not d.__class__ is value.__class__ is Tensor:
        return False
    a, b = d.payload, value.payload
    return a.__class__ is np.ndarray and a.shape == b.shape and a.dtype is b.dtype


def _are_alike(out: Tensor, tangents: Sequence[Tensor]) -> bool:
    """Tell whether a result is real, and of the shape and dtype of all tangents."""
    r = out.payload
    if r.dtype.kind != "f":
        return False
    for t in tangents:
        a = t.payload
        if a.shape != r.shape or a.dtype is not r.dtype:
            return False
    return True


def _gone_back(
    leaf: Node, start: int, gradients: Sequence[Tensor | None], tangents: Sequence[Tensor]
) -> Tensor | None:
    """Go back from the tangents of arguments to the probe, by what was recorded since `start`."""
    grads: dict[Node, Any] = {}
    heap: list[tuple[int, Node]] = []

    def push(n: Node) -> None:
        if n.seq > start:  # what is older was there before the probe, so the probe is not in it
            heappush(heap, (-n.seq, n))

    for gradient, tangent in zip(gradients, tangents, strict=True):
        if gradient is not None:
            if gradient.keys != _RECORDED:
                raise Looked
            send(gradient.grad_node, tangent.payload, grads, push)
    while heap:
        n = heappop(heap)[1]
        if n in SUBCLASS_NODES:
            raise Looked
        n.backward(n, grads.pop(n), grads, push)
    found = grads.pop(leaf, None)
    if grads or (found is None and any(d is not None for d in gradients)):
        raise Looked  # it is made of other tensors that require grad, or of nothing that came in
    return None if found is None else owned_array(leaf, found)


def _ones_like(array: Any) -> Any:
    made = np.empty_like(array)
    made.fill(1)
    return made


def _is_diagonal(gradient: Tensor, probe: Tensor) -> bool:
    """Tell whether a gradient was made of a probe by diagonal operators alone.

    They give no smaller shape than they are given, so where the gradient has the probe's, all have.
    """
    if gradient.keys != _RECORDED or gradient.grad_node is probe.grad_node:
        return False
    if gradient.payload.shape != probe.payload.shape:
        return False
    left: list[Node] = [gradient.grad_node]
    seen = {probe.grad_node}
    while left:
        node = left.pop()
        if node in seen:
            continue
        if node.seq == 0 or not _has_diagonal(node):
            return False
        seen.add(node)
        left.extend(edges(node))
    return True


def _has_diagonal(node: Node) -> bool:
    """Tell whether a node is of a diagonal operator on real numbers of one dtype."""
    for needs in DIAGONAL.get(node.name(), ()):
        recorder = recorder_of(node.op)
        if isinstance(recorder, FormulaRecorder):
            written = recorder.plan.written.get(("plain", needs))
            if written is not None and node.backward is written:
                return node not in SUBCLASS_NODES
    return False


def _probing(now: Word) -> Word:
    made: Word | None = now.__dict__.get("at_probe")
    if made is None:
        made = now.__dict__["at_probe"] = now.but(grad=True, probing=PROBING)
    return made
