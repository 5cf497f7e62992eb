"""The engine: walks a graph backwards, the latest node first.

Gradients live in a table of the run, never on nodes, so that runs may nest
and several threads may run on graphs that share nodes. A straight line needs
no order; only when more than one node waits is there a heap.

NOTE [Two modes]
A gradient that nobody watches is computed on bare NumPy arrays: no dispatch,
no tensors. That is when the roots are plain, `create_graph` is off, no mode,
level or trace is active, and no node in the graph is of a call that a Tensor
subclass answered. Otherwise the same formulas run on tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Any

import numpy as np

from polyop.dispatch.bits import ANOMALY, GRAD, NO_GRAD, NUMPY
from polyop.dispatch.context import Word, set_word, word
from polyop.errors import AutogradError
from polyop.layers.autograd.anomaly import watched_step
from polyop.layers.autograd.arrays import cast_array, cast_tensor, send
from polyop.layers.autograd.author import RUNNING
from polyop.layers.autograd.hooks import captured
from polyop.layers.autograd.node import SUBCLASS_NODES, Node, edges, freed
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import MADE, Tensor

Grads = dict[Node, Any]


def run_arrays(root: Node, grads: Grads, retain: bool) -> None:
    """Walk back from one node, on bare arrays."""
    pending: list[Node] = []
    push, take = pending.append, grads.pop
    heap: list[tuple[int, Node]] = []
    n = root
    while True:
        n.backward(n, take(n), grads, push)
        if not retain:
            n.backward = freed
            n.s0 = n.s1 = n.s2 = None
        if heap or len(pending) != 1:
            for m in pending:
                heappush(heap, (-m.seq, m))
            pending.clear()
            if not heap:
                return
            n = heappop(heap)[1]
        else:
            n = pending.pop()


def run_scalar(root: Tensor, retain: bool) -> Grads:
    """Walk back from a plain tensor of one element; give the gradients of leaves as arrays."""
    node, payload = root.grad_node, root.payload
    dtype = payload.dtype
    # By identity: hashing a dtype takes longer than two comparisons.
    one: Any = ONE32 if dtype is F32 else ONES.get(dtype)
    if payload.shape or one is None:
        refuse_complex(dtype, "outputs[0]")
        one = np.ones(payload.shape, dtype)
    grads: Grads = {node: one}
    if node.seq:
        run_arrays(node, grads, retain)
    return grads


def refuse_complex(dtype: Any, argument: str) -> None:
    """Refuse a complex scalar to begin from: its real part alone would be differentiated.

    Raises:
        AutogradError: the dtype is complex.
    """
    if dtype.kind == "c":
        raise AutogradError(
            "a complex result has no gradient of its own, only one that is given",
            argument=argument,
            declared="a real scalar",
            seen=f"dtype {dtype}",
            fix="take a real number of it (polyop.real, polyop.abs), or pass its gradient",
        )


def _ones() -> dict[Any, Any]:
    found = {np.dtype(name): np.ones((), name) for name in ("f4", "f8")}
    for one in found.values():
        one.flags.writeable = False  # so that no leaf keeps it as its own gradient
    return found


#: The gradient of a scalar with respect to itself.
ONES = _ones()
F32 = np.dtype(np.float32)
ONE32 = ONES[F32]


def run_all(
    roots: Iterable[Node],
    grads: Grads,
    retain: bool,
    *,
    tensors: bool,
    wanted: frozenset[Node] = frozenset(),
    needed: set[Node] | None = None,
    ends: frozenset[Node] = frozenset(),
) -> Grads:
    """Walk back from several nodes; give the gradients of inner nodes that are wanted.

    Args:
        roots: where to begin; their gradients are in `grads`.
        grads: the table; gradients of leaves stay in it.
        retain: whether the graph is used again.
        tensors: whether gradients are tensors.
        wanted: nodes whose gradient is asked for.
        needed: the nodes to visit, or None for all.
        ends: nodes that are not left; their gradients stay in the table, as those of leaves.
    """
    step = (_watched if word() & ANOMALY else _on_tensors) if tensors else _on_arrays
    found: Grads = {}
    pending: list[Node] = []
    push = _unless(ends, pending) if ends else pending.append
    heap = [(-n.seq, n) for n in set(roots) - ends if n.seq]
    heap.sort()
    while heap:
        n = heappop(heap)[1]
        g = grads.pop(n)
        rest = None
        if n in wanted:
            found[n], rest = captured(n, g, tensors=tensors)
            g = found[n]
        if needed is not None and n not in needed:
            continue
        step(n, g, grads, push, rest)
        if not retain:
            n.backward = freed
            n.s0 = n.s1 = n.s2 = None
        for m in pending:
            heappush(heap, (-m.seq, m))
        pending.clear()
    return found


def _unless(ends: frozenset[Node], pending: list[Node]) -> Callable[[Node], Any]:
    """Give what notes a node that waits, if it is none of the ends."""

    def push(n: Node) -> None:
        if n not in ends:
            pending.append(n)

    return push


def _on_arrays(
    n: Node, g: Any, grads: Grads, push: Callable[[Node], Any], rest: Any = None
) -> None:
    (rest or n.backward)(n, g, grads, push)


def _watched(n: Node, g: Any, grads: Grads, push: Callable[[Node], Any], rest: Any = None) -> None:
    step = partial(_on_tensors, rest=rest)
    watched_step(step, n, g, grads, lambda m, d: send(m, d, grads, push))


def _on_tensors(
    n: Node, g: Any, grads: Grads, push: Callable[[Node], Any], rest: Any = None
) -> None:
    token = RUNNING.set(n.op)
    try:
        (rest or n.backward).tensor(n, g, grads, push)
    finally:
        RUNNING.reset(token)


def on_the_way(roots: Iterable[Node], wanted: frozenset[Node]) -> set[Node]:
    """Give the nodes from which a wanted node can be reached."""
    seen: dict[Node, list[Node]] = {}
    stack = list(roots)
    while stack:
        n = stack.pop()
        if n not in seen:
            seen[n] = list(edges(n))
            stack += seen[n]
    reach = set(wanted)
    # Inputs are older than their node, so upwards by number all inputs come first.
    for n in sorted(seen, key=lambda n: n.seq):
        if any(m in reach for m in seen[n]):
            reach.add(n)
    # A wanted node itself is left only towards other wanted ones.
    return {n for n in reach if any(m in reach for m in seen.get(n, ()))}


def plain_run(tensors: Sequence[Tensor], create_graph: bool) -> bool:
    """Tell whether gradients may be computed on bare arrays (NOTE [Two modes])."""
    if create_graph or int(word()) & ~NO_GRAD:
        return False
    return all(not t.keys & ~(NUMPY | GRAD) for t in tensors)


def meets_subclass(roots: Iterable[Node]) -> bool:
    """Tell whether a call that a subclass answered is in the graph."""
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        n = stack.pop()
        if n in SUBCLASS_NODES:
            return True
        if n not in seen:
            seen.add(n)
            stack += edges(n)
    return False


def run(
    roots: Sequence[tuple[Node, Tensor]],
    *,
    retain: bool,
    create_graph: bool,
    wanted: frozenset[Node] | None = None,
    under: Word | None = None,
    ends: bool = False,
) -> Grads:
    """Run backward, and give the gradients of leaves, or of the wanted nodes, as tensors.

    Args:
        roots: nodes, and their gradients.
        retain: whether the graph is used again.
        create_graph: whether gradients are recorded.
        wanted: the nodes whose gradients are asked for; None for all leaves.
        under: the word to run under, if not the current one with grad mode set.
        ends: whether backward ends at the wanted nodes: the way from one to another is not
            followed, and hooks of theirs do not run.
    """
    arrays = under is None and plain_run([g for _, g in roots], create_graph)
    if arrays and MADE.subclasses:
        arrays = not meets_subclass([node for node, _ in roots])
    grads: Grads = {}
    for node, g in roots:
        send(node, g.payload if arrays else g, grads, _nothing)
    found: Grads = {}
    if wanted is None and arrays and len(roots) == 1:
        if roots[0][0].seq:
            run_arrays(roots[0][0], grads, retain)
    else:
        nodes = list(grads)
        needed = None if wanted is None else on_the_way(nodes, wanted)
        now = word()
        try:
            set_word(under or (now.with_grad if create_graph else now.without_grad))
            found = run_all(
                nodes,
                grads,
                retain,
                tensors=not arrays,
                wanted=frozenset() if ends else wanted or frozenset(),
                needed=needed,
                ends=(wanted if ends else None) or frozenset(),
            )
        finally:
            set_word(now)
    leaves = {n: g for n, g in grads.items() if wanted is None or n in wanted}
    del grads
    return _finished(found | leaves, arrays, create_graph or under is not None)


def _finished(found: Grads, arrays: bool, recorded: bool) -> Grads:
    done: Grads = {}
    while found:
        node, g = found.popitem()
        done[node] = owned_array(node, g) if arrays else _owned_tensor(node, g, done, recorded)
        del g
    return done


def _nothing(node: Node) -> None:
    pass


# -- gradients that are handed out --------------------------------------------


def _baseline() -> int:
    fresh = np.empty(0)
    return sys.getrefcount(fresh)


#: The references that a fresh array has inside a function: more, and somebody shares it.
#: One for the caller's variable is added below.
UNSHARED = _baseline() + 1


def owned_array(node: Node, g: Any) -> Tensor:
    """Make a gradient of its own: no two leaves, and no saved value, share memory."""
    if g.__class__ is not np.ndarray:
        g = np.array(g)
    if node.seq == 0 and g.dtype is not node.more:
        g = cast_array(g, node.more)
    # Two references more than `UNSHARED`'s one are the caller's variable and this call's.
    if g.base is not None or sys.getrefcount(g) > UNSHARED or not g.flags.writeable:
        g = g.copy()
    t = Tensor()  # `of_array`, in this frame
    t.payload = g
    t.keys = NUMPY
    t.version = 0
    return t


def _owned_tensor(node: Node, g: Tensor, done: Grads, recorded: bool) -> Tensor:
    if node.seq == 0:
        g = cast_tensor(g, node.more)
    if any(g is other for other in done.values()):
        g = ON_TENSORS["clone"](g)
    return g
