"""A call of a subgraph operator on a whole batch: the function of a batch, below the vmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.bits import BATCHED
from polyop.dispatch.context import set_word, word
from polyop.errors import SubgraphError
from polyop.hop.gradient import remade
from polyop.hop.rules import Interpreter
from polyop.layers.vmap.batch import VmapLevel, batched, peel
from polyop.ops.views import moveaxis
from polyop.tensor.tensor import Tensor


def batched_call(
    hop: Any, to: Interpreter, subgraph: Callable[..., Any], operands: Any, options: Any
) -> Any:
    """Call an operator on the function of a whole batch, below the vmap."""
    level: VmapLevel = to.level
    hop, subgraph, options = hop.as_call(subgraph, options)
    leaves, spec = tree.flatten(operands)
    pairs = [peel(x, level) for x in leaves]
    of_batch = OfBatch(subgraph, spec, [axis for _, axis in pairs], level)
    with to.lower():
        values = tree.unflatten(spec, [value for value, _ in pairs])
        out = hop(remade(subgraph, of_batch), *values, **options)
    results, out_spec = tree.flatten(out)
    mapped = [
        batched(x, 0, level) if differs and isinstance(x, Tensor) else x
        for x, differs in zip(results, of_batch.differ, strict=True)
    ]
    return tree.unflatten(out_spec, mapped)


class OfBatch:
    """A function of whole batches, made of a function of one sample; batches have axis 0.

    Attributes:
        differ: for each result, whether it differed from sample to sample in the last run.
    """

    def __init__(
        self, subgraph: Callable[..., Any], spec: Any, axes: Sequence[Any], level: VmapLevel
    ) -> None:
        self.differ: list[bool] = []
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
        try:
            set_word(now.but(levels=(*now.levels, level)))
            out = self.subgraph(*tree.unflatten(self.spec, inputs))
        finally:
            set_word(now)
            level.alive = level.alive and level is self.level
        self.differ = [peel(x, level)[1] is not None for x in tree.leaves(out)]
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
        return moveaxis(value, axis, 0) if axis else value
