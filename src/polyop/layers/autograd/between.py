"""The gradient of one function in the midst of a graph, for what it was given.

What was given may have a history, and one of it may be computed from another.
Each is an end here: the way on from it, and its hooks, are of the backward that
asks for this gradient, and run there.
"""

from __future__ import annotations

from collections.abc import Sequence

from polyop.dispatch.bits import GRAD
from polyop.layers.autograd.engine import run
from polyop.tensor.tensor import Tensor


def grad_between(
    results: Sequence[Tensor],
    given: Sequence[Tensor],
    grads: Sequence[Tensor],
    *,
    create_graph: bool,
) -> list[Tensor | None]:
    """Give the gradients of what a function was given.

    Args:
        results: what it gave, each with its gradient in `grads`.
        given: what it was given and requires grad; a tensor that is there twice gets its
            gradient the first time.
        grads: the gradients of the results.
        create_graph: whether the gradients are recorded.
    """
    nodes = [x.grad_node for x in given]
    # A function may compute a result of no tensor that requires grad, in this run.
    roots = [(x.grad_node, g) for x, g in zip(results, grads, strict=True) if x.keys & GRAD]
    ends = frozenset(nodes)
    found = run(roots, retain=create_graph, create_graph=create_graph, wanted=ends, ends=True)
    return [found.pop(node, None) for node in nodes]
