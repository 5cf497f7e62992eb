"""Writes to tensors whose history is recorded, and views of them.

A write gives its tensor a new history: the node of the functional twin, with
the former history as an input. What the gradient reads of the old value is
copied before the write.

NOTE [Writes through views]
A write to a view is a write to a part of its base. The base gets a node whose
backward sends to the old base the gradient with that part replaced: `g +
V'(d - V g)`, where V takes the view (its operators, run again), V' is V's own
gradient, and d is the gradient of the written part. Made of operators only,
this works in every mode and can be differentiated. All living views of the
base then get their history anew. They are found through the one `Version`
that aliases share: only if more hold it than we know of do we search.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from typing import Any

from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import GRAD
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import run_under, word
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.results import tensors_in
from polyop.errors import MutationError
from polyop.layers.autograd.arrays import adapted, send
from polyop.layers.autograd.engine import run
from polyop.layers.autograd.hooks import keep_grad, keeps_grad
from polyop.layers.autograd.node import Node, edges, leaf_node, next_seq, node_of
from polyop.layers.autograd.recorders import FormulaRecorder, MissingRecorder, Recorder, recorder_of
from polyop.layers.autograd.saved import Twin, bare, part_node
from polyop.ops.define import ON_TENSORS
from polyop.ops.inplace import INPLACE_TWINS
from polyop.tensor.storage import Version
from polyop.tensor.subclass import copy_of
from polyop.tensor.tensor import Tensor

#: One operator of a view, and its arguments after the base.
Step = tuple[OpOverload, tuple[Any, ...]]


def writing(op: OpOverload, below: Handler) -> Handler:
    """Make the handler of an operator that writes."""
    found = _recorder_of(op)
    places = [i for i, a in enumerate(op._schema.arguments) if a.is_write]

    def handler(*args: Any) -> Any:
        written = [t for i in places for t in tensors_in(args[i])]
        for tensor in written:
            refuse_leaf(op, tensor)
        if found is None or not written:
            return below(*args)
        for tensor in written:
            _refuse_bypass(op, tensor)
        if len(written) > 1:
            return _write_many(found, below, args, written)
        return _write(found, below, args, written[0])

    return handler


def _recorder_of(op: OpOverload) -> Recorder | None:
    twin = INPLACE_TWINS.get(op.name())
    if twin is not None:
        return recorder_of(twin) or CUT
    return MissingRecorder(op) if op.rule("backward") is None else None


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


def take(steps: Sequence[Step], tensor: Any) -> Any:
    """Take a view again, of another base."""
    for op, statics in steps:
        if result_forms(op._schema)[0][0] == "views":
            tensor = dispatch(op, [tensor, *statics[:-1]])[statics[-1]]
        else:
            tensor = dispatch(op, [tensor, *statics])
    return tensor


# -- the write ----------------------------------------------------------------


def _write(found: Recorder, below: Handler, args: Sequence[Any], x: Tensor) -> Any:
    root, steps = history(x)
    read = _read_by(found)
    old = _before(x, copied=any(args[i] is x for i in read))
    values = [
        old if a is x else _before(a, copied=True) if i in read and _is_alias(a, x) else a
        for i, a in enumerate(args)
    ]
    capture = leaf_node(x.dtype) if steps and old.keys & GRAD else None

    def node_here(tensor: Tensor) -> Node | None:
        # The gradient of a part stops there; what was saved of it has its own history.
        return capture if tensor is old and capture is not None else node_of(tensor)

    out = below(*args)
    after = bare(x)
    found.record(values, values, after, after, kept=False, node_of=node_here, plain=False)
    inner = node_of(after)
    twins = _twins_in(inner, after.version)
    del after  # it holds the version, by which living views are known
    if not steps:
        _renew(x, inner)
    elif inner is not None or root.keys & GRAD:
        _renew(root, region_node(root, x, steps, inner, capture))
    refresh(root, x, twins)
    return out


def _twins_in(node: Node | None, version: Any) -> int:
    """Count what a node saved of the new value: each holds its version."""
    found = [] if node is None else [getattr(node, name, None) for name in ("s0", "s1", "s2")]
    items = [x for s in found for x in (s if s.__class__ in {list, tuple} else (s,))]
    return sum(x.__class__ is Twin and x.tensor.version is version for x in items)


def _refuse_bypass(op: OpOverload, x: Any) -> None:
    """Refuse a write to a view that a Function gave: its base would not know of the backward.

    Raises:
        MutationError: it is one, or a view of one.
    """
    while getattr(x, "view_of", None) is not None:
        if _by_function(x):
            raise MutationError(
                f"{op.name()} writes a view that a Function gave of its argument",
                op=op._schema,
                seen=f"shape {tuple(x.shape)}, of {x.grad_node.name()}",
                fix="write to a clone, or let forward give one",
            )
        x = x.view_of[0]


def _by_function(x: Any) -> bool:
    """Tell whether a view has the history that a Function gave it, which no operator can renew."""
    op = getattr(x.grad_node, "op", None) if x.keys & GRAD else None
    return op is not None and not isinstance(op, OpOverload)


def _read_by(found: Recorder) -> set[int]:
    """Give the places of the arguments whose values the gradient reads."""
    if not isinstance(found, FormulaRecorder):
        return set()
    reads = found.plan.part(found.plan.diff).reads
    return {read.index for read in reads if read.kind in {"tensor", "tensor?"}}


def _is_alias(a: Any, x: Tensor) -> bool:
    """Tell whether an argument has the memory that is written, beside the written tensor."""
    return isinstance(a, Tensor) and a.version.__class__ is Version and a.version is x.version


def _before(x: Tensor, *, copied: bool) -> Tensor:
    """Give a tensor with the history from before the write, and a copy of the value if wanted."""
    old = Tensor() if x.__class__ is Tensor else copy_of(x)
    old.payload = x.payload
    if copied:
        copy = run_under(word().without_grad, ON_TENSORS["clone"], bare(x))
        old = copy if copy.__class__ is not Tensor else old
        old.payload = copy.payload
        if hasattr(copy, "graph_node"):  # a trace knows the copy by its node
            old.graph_node = copy.graph_node
    old.keys, old.version = x.keys, 0
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


def _end(op: Any, backward: Any = None) -> Node:
    """Make the node of a value that depends on nothing, which still requires grad."""
    node = Node()
    node.backward = backward or _stop
    node.op, node.seq, node.n0 = op, next_seq(), ()
    return node


def _stop(node: Node, g: Any, grads: Any, push: Any) -> None:
    pass


def _lost(node: Node, g: Any, grads: Any, push: Any) -> None:
    raise MutationError(
        f"what {node.name()} gave is a view of its argument, which was written since",
        fix="let forward give a clone, or write before the Function is called",
    )


_stop.tensor = _stop  # type: ignore[attr-defined]
_lost.tensor = _lost  # type: ignore[attr-defined]


def _write_many(
    found: Recorder, below: Handler, args: Sequence[Any], written: Sequence[Tensor]
) -> Any:
    """Write several tensors at once: an author's operator, which has no gradient (S131)."""
    out = below(*args)
    for x in written:
        after = bare(x)
        found.record(args, args, after, after, kept=False, node_of=node_of, plain=False)
        _renew(x, node_of(after))
    return out


# -- views --------------------------------------------------------------------


def region_node(
    root: Tensor, x: Tensor, steps: list[Step], inner: Node | None, capture: Node | None
) -> Node:
    """Make the node of a base of which a part was written (NOTE [Writes through views])."""
    node = Node()
    node.backward = region_backward
    node.seq = next_seq()
    node.op = steps[-1][0]
    former = node_of(root)
    others = () if inner is None else tuple(n for n in edges(inner) if n is not capture)
    node.n0 = others if former is None else (former, *others)
    node.s0 = steps
    node.s1 = inner
    node.s2 = (former, capture)
    return node


def _region_backward(n: Node, g: Any, grads: dict[Node, Any], push: Callable[[Node], Any]) -> None:
    steps, inner, (former, capture) = n.s0, n.s1, n.s2
    part = take(steps, g)
    own: dict[Any, Any] = {}
    if inner is not None:
        written_node = part_node(inner, node_of(_taken(n, steps, g))) if word().grad else inner
        inner.backward.tensor(written_node, part, own, _ignore)
    written = own.pop(capture, None)
    for node, d in own.items():
        send(node, d, grads, push)
    if former is not None:
        change = ON_TENSORS["negative"](part)
        if written is not None:
            change = ON_TENSORS["add"](change, written)
        send(former, ON_TENSORS["add"](g, put_back(steps, g, change)), grads, push)


region_backward = adapted(_region_backward)


def put_back(steps: Sequence[Step], like: Tensor, part: Tensor) -> Tensor:
    """Give a tensor like the base that is zero but for one part."""
    leaf = leaf_node(like.dtype)
    taken = _taken(leaf, steps, like)
    found = run(
        [(taken.grad_node, part)], retain=False, create_graph=word().grad, wanted=frozenset([leaf])
    )
    back: Tensor = found[leaf]
    return back


def _taken(node: Node, steps: Sequence[Step], like: Tensor) -> Tensor:
    """Take a view of a base that has a node; its data are those of `like`."""
    proxy = bare(like)
    proxy.grad_node = node
    proxy.keys |= GRAD
    taken: Tensor = run_under(word().with_grad, take, steps, proxy)
    return taken


def _ignore(node: Node) -> None:
    pass


def refresh(root: Tensor, x: Tensor, twins: int = 0) -> None:
    """Give all living views of a base their history anew.

    Args:
        root: the base.
        x: the view of it, or the base itself, that was written.
        twins: how many saved values are known to hold the version.
    """
    if not root.keys & GRAD:
        return
    for view in sorted(_views(root, x, twins), key=lambda v: len(history(v)[1])):
        if _by_function(view):
            view.grad_node = _end(view.grad_node.op, _lost)
            continue
        fresh = take(history(view)[1][-1:], view.view_of[0])
        _renew(view, fresh.grad_node)


#: References to a version that are always there: its base's, and this function's two.
KNOWN = 3


def _views(root: Tensor, x: Tensor, twins: int) -> list[Tensor]:
    """Give the living views of a base; those that lead to `x` need no search."""
    views: list[Tensor] = []
    while x is not root:
        views.append(x)
        x = x.view_of[0]
    version = root.version
    if version.__class__ is not Version:
        return views
    held = sum(view.version is version for view in views)
    if sys.getrefcount(version) <= KNOWN + held + twins:
        return views
    known = {id(view) for view in views}
    holders = [t for t in gc.get_referrers(version) if isinstance(t, Tensor)]
    others = [t for t in holders if t is not root and id(t) not in known]
    return [*views, *[t for t in others if history(t)[0] is root]]
