"""Writes to tensors whose history is recorded, and views of them.

A write gives its tensor a new history: the node of the functional twin, with
the former history as an input. What the gradient reads of the old value is
copied before the write.

A write to a view is one to its base (`regions.py`), and all living views of
the base get their history anew. They are found through the one `Version` that
aliases share: only if more hold it than we know of do we search (`holders.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from polyop.dispatch.bits import GRAD
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import run_under, word
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.results import tensors_in
from polyop.errors import MutationError
from polyop.layers.autograd.author import AuthorRecorder, new_among, own_history
from polyop.layers.autograd.holders import holders_of
from polyop.layers.autograd.hooks import keep_grad, keeps_grad
from polyop.layers.autograd.node import Node, leaf_node, next_seq, node_of
from polyop.layers.autograd.recorders import FormulaRecorder, MissingRecorder, Recorder, recorder_of
from polyop.layers.autograd.regions import region_node
from polyop.layers.autograd.saved import Twin, apart, bare
from polyop.ops.define import ON_TENSORS
from polyop.ops.inplace import INPLACE_TWINS
from polyop.records import NamedTuple
from polyop.tensor.retaken import Step, retaken
from polyop.tensor.storage import Version
from polyop.tensor.subclass import copy_of
from polyop.tensor.tensor import Tensor


class Writing(NamedTuple):
    """What is known of an operator that writes.

    Attributes:
        op: the operator.
        found: records its calls.
        reads: the places of the arguments whose values the gradient reads.
        fresh: the numbers of the results that are no written arguments.
    """

    op: OpOverload
    found: Recorder
    reads: frozenset[int]
    fresh: tuple[int, ...]


class Part(NamedTuple):
    """A written tensor.

    Attributes:
        tensor: itself.
        root: the base whose history it has a part in; itself, if it is no view.
        steps: the way from there.
        former: what it was before the write.
        capture: where the gradient of a part stops that was written over, if there is one.
    """

    tensor: Tensor
    root: Tensor
    steps: list[Step]
    former: Tensor
    capture: Node | None


def writing(op: OpOverload, below: Handler) -> Handler:
    """Make the handler of an operator that writes."""
    places = [i for i, a in enumerate(op._schema.arguments) if a.is_write]
    source = INPLACE_TWINS.get(op.name()) or op  # whose rules say what the gradient is

    def handler(*args: Any) -> Any:
        known: Writing = source.notes.get(op) or source.note(op, lambda _: _known(op))
        written = [t for i in places for t in tensors_in(args[i])]
        for tensor in written:
            refuse_leaf(op, tensor)
        if not written and not known.fresh:
            return below(*args)
        for tensor in written:
            _refuse_bypass(op, tensor)
        return _write(known, below, args, written)

    return handler


def _known(op: OpOverload) -> Writing:
    found = _recorder_of(op)
    forms = result_forms(op._schema)
    fresh = tuple(i for i, (kind, _) in enumerate(forms) if kind != "argument")
    return Writing(op, found, _read_by(op, found), fresh)


def _recorder_of(op: OpOverload) -> Recorder:
    twin = INPLACE_TWINS.get(op.name())
    if twin is not None:
        return recorder_of(twin) or CUT
    return MissingRecorder(op) if op.rule("backward") is None else CUT


class Cut:
    """Records a write whose result depends on no tensor, such as `fill_`: history ends there."""

    def record(self, *args: Any, **kwargs: Any) -> None:
        """Leave the result without history."""


CUT = Cut()


def refuse_leaf(op: OpOverload, tensor: Tensor) -> None:
    """Refuse a write to a leaf that requires grad, or to a view of one.

    Raises:
        MutationError: before anything is changed.
    """
    root, _ = history(tensor)
    for seen, what in ((tensor, "a leaf"), (root, "a view of a leaf")):
        if seen.keys & GRAD and seen.grad_node.seq == 0:
            raise MutationError(
                f"{op.name()} writes {what} that requires grad",
                op=op._schema,
                seen=f"shape {tuple(tensor.shape)}",
                source=op.source,
                fix="write under no_grad, or use the operator that returns a new tensor",
            )


def refuse_unseen(op: OpOverload, tensor: Tensor) -> None:
    """Refuse a recorded write to a view that was made under no_grad: its base would not know.

    Raises:
        MutationError: a tensor that it is a view of requires grad.
    """
    view = getattr(tensor, "view_of", None)
    while view is not None and recorder_of(view[1]) is not None:
        if view[0].keys & GRAD:
            raise MutationError(
                f"{op.name()} writes a view without history of a tensor that requires grad",
                op=op._schema,
                seen=f"shape {tuple(tensor.shape)}, made under no_grad or before requires_grad_()",
                source=op.source,
                fix="write under no_grad too, or take the view with grad mode on",
            )
        view = getattr(view[0], "view_of", None)


def history(tensor: Tensor) -> tuple[Tensor, list[Step]]:
    """Give the base whose history a tensor has a part in, and the way from it to the tensor."""
    steps: list[Step] = []
    while True:
        view = getattr(tensor, "view_of", None)
        if view is None or recorder_of(view[1]) is None:
            return tensor, steps[::-1]
        steps.append((view[1], view[2]))
        tensor = view[0]


# -- the write ----------------------------------------------------------------


def _write(known: Writing, below: Handler, args: Sequence[Any], written: Sequence[Tensor]) -> Any:
    parts = [_part(known, x, args) for x in written]
    values = _formerly(known, args, parts)
    out = _with_new(known, below(*args)) if known.fresh else below(*args)
    roots: dict[int, tuple[Tensor, Tensor, Node | None]] = {}
    for part, inner in zip(parts, _recorded(known, values, out, parts), strict=True):
        x, root, steps, _, capture = part
        if not steps:
            _renew(x, inner)
        elif inner is not None or root.keys & GRAD:
            _renew(root, region_node(root, x, steps, inner, capture))
        roots[id(root)] = (root, x, inner)
    for root, x, inner in roots.values():
        refresh(root, x, inner)
    return out


def _with_new(known: Writing, out: Any) -> Any:
    """Give the results of a call, where those that are no written arguments have no history."""
    every = list(out) if len(known.op._schema.returns) > 1 else [out]
    for i in known.fresh:
        every[i] = apart(every[i])
    out = every[0] if len(every) == 1 else tuple(every)
    own_history(new_among(known.op, out))
    return out


def _part(known: Writing, x: Tensor, args: Sequence[Any]) -> Part:
    root, steps = history(x)
    former = _before(x, copied=any(args[i] is x for i in known.reads))
    # A call without a gradient is reached by the history of all that it had.
    caught = steps and former.keys & GRAD and known.found.__class__ is not MissingRecorder
    return Part(x, root, steps, former, leaf_node(x.dtype) if caught else None)


def _formerly(known: Writing, args: Sequence[Any], parts: Sequence[Part]) -> list[Any]:
    """Give the arguments as they are before the write, as far as the gradient knows of them."""
    values = list(args)
    for part in parts:
        x = part.tensor
        for i, a in enumerate(args):
            if a is x:
                values[i] = part.former
            elif i in known.reads and _is_alias(a, x):
                values[i] = _before(a, copied=True)
    return values


def _recorded(
    known: Writing, values: Sequence[Any], out: Any, parts: Sequence[Part]
) -> list[Node | None]:
    """Record a call, and give the node of each written tensor."""
    captures = {id(part.former): part.capture for part in parts if part.capture is not None}

    def node_here(tensor: Tensor) -> Node | None:
        # The gradient of a part stops there; what was saved of it has its own history.
        return captures.get(id(tensor)) or node_of(tensor)

    results = [bare(part.tensor) for part in parts]
    if known.fresh:
        every = out if len(known.op._schema.returns) > 1 else (out,)
        results += [every[i] for i in known.fresh]
    given = results if len(results) > 1 else results[0]
    known.found.record(
        values, values, given, given, kept=False, node_of=node_here if captures else node_of,
        plain=False,
    )  # fmt: skip
    return [node_of(t) for t in results[: len(parts)]]


def _refuse_bypass(op: OpOverload, x: Any) -> None:
    """Refuse a write to a view that nobody can take again: its base would not know of the write.

    Raises:
        MutationError: it is one, or a view of one.
    """
    while getattr(x, "view_of", None) is not None:
        by = _only_giver(x)
        if by is not None:
            name = by.name() if isinstance(by, OpOverload) else "a Function"
            raise MutationError(
                f"{op.name()} writes a view that {name} gave of its argument",
                op=op._schema,
                seen=f"shape {tuple(x.shape)}, of {x.grad_node.name() if x.keys & GRAD else name}",
                fix="write to a clone, or let it give one",
            )
        x = x.view_of[0]


def _only_giver(x: Any) -> Any:
    """Give what made a view that cannot be taken again: a Function, or an operator that writes."""
    op = getattr(x.grad_node, "op", None) if x.keys & GRAD else None
    if op is not None and not isinstance(op, OpOverload):
        return op
    op = x.view_of[1]
    return op if op._schema.is_mutable and recorder_of(op) is not None else None


def _read_by(op: OpOverload, found: Recorder) -> frozenset[int]:
    """Give the places of the arguments whose values the gradient reads."""
    if isinstance(found, AuthorRecorder):  # which of them `setup_context` keeps, only it knows
        return frozenset(range(len(op._schema.arguments)))
    if not isinstance(found, FormulaRecorder):
        return frozenset()
    reads = found.plan.part(found.plan.diff).reads
    return frozenset(read.index for read in reads if read.kind in {"tensor", "tensor?"})


def _is_alias(a: Any, x: Tensor) -> bool:
    """Tell whether an argument has the memory that is written, beside the written tensor."""
    return isinstance(a, Tensor) and a.version.__class__ is Version and a.version is x.version


def _before(x: Tensor, *, copied: bool) -> Tensor:
    """Give a tensor with the history from before the write, and a copy of the value if wanted."""
    if copied:
        old: Tensor = run_under(word().without_grad, ON_TENSORS["clone"], bare(x))
        old.keys |= x.keys & GRAD
    else:
        old = Tensor() if x.__class__ is Tensor else copy_of(x)
        old.payload, old.keys = x.payload, x.keys
    old.version = 0
    if x.keys & GRAD:
        old.grad_node = x.grad_node
    return old


def _renew(x: Tensor, node: Node | None) -> None:
    if node is None and x.keys & GRAD:
        node = _end(x.grad_node.op)
    if node is not None:
        keeps = x.keys & GRAD and keeps_grad(x.grad_node)
        x.keys |= GRAD
        x.grad_node = node
        if keeps:  # `.grad` is that of the value which the tensor has now
            keep_grad(node)


def _end(op: Any, backward: Any = None, reached: tuple[Node | None, ...] = ()) -> Node:
    """Make the node of a value whose gradient ends there, and which still requires grad."""
    node = Node()
    node.backward = backward or _stop
    node.op, node.seq, node.n0 = op, next_seq(), reached
    return node


def _stop(node: Node, g: Any, grads: Any, push: Any) -> None:
    pass


def _lost(node: Node, g: Any, grads: Any, push: Any) -> None:
    raise MutationError(
        f"what {node.name()} gave is a view of its argument, which was written since",
        fix="let it give a clone, or write before it is called",
    )


_stop.tensor = _stop  # type: ignore[attr-defined]
_lost.tensor = _lost  # type: ignore[attr-defined]


# -- views --------------------------------------------------------------------


def refresh(root: Tensor, x: Tensor, inner: Node | None) -> None:
    """Give all living views of a base their history anew.

    Args:
        root: the base.
        x: the view of it, or the base itself, that was written.
        inner: the node of what was written, which may have saved it.
    """
    if not root.keys & GRAD:
        return
    views = _views(root, x, inner)
    for view in views if len(views) < 2 else sorted(views, key=lambda v: len(history(v)[1])):
        base = view.view_of[0]
        by = _only_giver(view)
        if by is not None:
            _renew(view, _end(by, _lost, (node_of(view), node_of(base))))
            continue
        fresh = retaken(history(view)[1][-1], base)
        _renew(view, fresh.grad_node)


#: References to a version that are always there: its base's, and this function's two.
KNOWN = 3


def _views(root: Tensor, x: Tensor, inner: Node | None) -> list[Tensor]:
    """Give the living views of a base; those that lead to `x` need no search."""
    views: list[Tensor] = []
    while x is not root:
        views.append(x)
        x = x.view_of[0]
    version = root.version
    if version.__class__ is not Version:
        return views
    held = KNOWN + sum([view.version is version for view in views])
    found = sys.getrefcount(version)
    if found <= held or found <= held + _twins_in(inner, version):
        return views
    known = {id(view) for view in views}
    holders = holders_of(version, [root, *views], found - 2)
    others = [t for t in holders if t is not root and id(t) not in known]
    return [*views, *[t for t in others if history(t)[0] is root]]


def _twins_in(node: Node | None, version: Any) -> int:
    """Count what a node saved of the new value: each holds its version."""
    found = [] if node is None else [getattr(node, name, None) for name in ("s0", "s1", "s2")]
    items = [x for s in found for x in (s if s.__class__ in {list, tuple} else (s,))]
    return sum(x.__class__ is Twin and x.tensor.version is version for x in items)
