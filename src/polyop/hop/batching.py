"""A call of a subgraph operator on a whole batch: the function of a batch, below the vmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bits import BATCHED
from polyop.dispatch.context import reset_word, set_word, word
from polyop.errors import SubgraphError
from polyop.hop.rules import Interpreter
from polyop.layers.vmap.batch import VmapLevel, batched, peel
from polyop.ops.broadcasting import expand_to
from polyop.ops.views import expand_dims, moveaxis
from polyop.tensor.tensor import Tensor


def batched_call(
    hop: Any, to: Interpreter, subgraph: Callable[..., Any], operands: Any, options: Any
) -> Any:
    """Call an operator on the function of a whole batch, below the vmap."""
    level: VmapLevel = to.level
    leaves, spec = tree.flatten(operands)
    pairs = [peel(x, level) for x in leaves]
    of_batch = OfBatch(subgraph, spec, [axis for _, axis in pairs], level)
    with to.lower():
        out = hop(of_batch, *tree.unflatten(spec, [value for value, _ in pairs]), **options)

    def mapped(leaf: Any) -> Any:
        return batched(leaf, 0, level) if isinstance(leaf, Tensor) else leaf

    return tree.map_leaves(mapped, out)


class OfBatch:
    """A function of whole batches, made of a function of one sample; all results have axis 0."""

    def __init__(
        self, subgraph: Callable[..., Any], spec: Any, axes: Sequence[Any], level: VmapLevel
    ) -> None:
        self.subgraph = subgraph
        self.spec = spec
        self.axes = axes
        self.level = level

    def __call__(self, *given: Any) -> Any:
        """Run the function on the batch."""
        now, level = word(), self.level
        # While the vmap runs it is the same one: what the function closes over may be of this
        # batch too. A gradient comes later, or below levels of its own.
        if not level.alive or len(now.levels) != level.depth:
            level = VmapLevel(level.batch_size, level.randomness)
        pairs = zip(tree.leaves(given), self.axes, strict=True)
        inputs = [x if axis is None else batched(x, axis, level) for x, axis in pairs]
        token = set_word(now.but(levels=(*now.levels, level)))
        try:
            out = self.subgraph(*tree.unflatten(self.spec, inputs))
        finally:
            reset_word(token)
            level.alive = level.alive and level is self.level
        return tree.map_leaves(lambda leaf: self._whole(leaf, level), out)

    def _whole(self, leaf: Any, level: VmapLevel) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        value, axis = peel(leaf, level)
        if value.keys & BATCHED and value.payload.level is self.level:
            raise SubgraphError(
                "the gradient of a batched function needs a tensor that is not among its operands",
                seen=f"shape {tuple(value.shape)}",
                fix="pass the tensor to the function as an operand",
            )
        if axis is None:
            return expand_to(expand_dims(value, 0), [level.batch_size, *value.shape])
        return moveaxis(value, axis, 0) if axis else value
