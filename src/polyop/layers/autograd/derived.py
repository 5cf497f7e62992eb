"""The gradient of an operator that only says what it is made of: that of its decomposition.

The kernel stays opaque and runs forward; backward runs the decomposition on
what was saved, and goes back through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.context import word
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.rules import AutogradRule
from polyop.layers.autograd.author import flatten_results
from polyop.layers.autograd.saved import bare
from polyop.lazy import load
from polyop.tensor.tensor import Tensor, is_differentiable


def derived_rule(op: OpOverload, composed: Callable[..., Any]) -> AutogradRule:
    """Make the gradient of an operator from a function that computes the same with others."""
    names = [a.name for a in op._schema.keyword_only]
    n = len(op._schema.positional)

    def setup(ctx: Any, inputs: Any, keyword_only_inputs: Any, output: Any) -> None:
        leaves, ctx.spec = tree.flatten([*inputs, *(keyword_only_inputs[k] for k in names)])
        ctx.save_for_backward(*[x if isinstance(x, Tensor) else None for x in leaves])
        ctx.statics = [None if isinstance(x, Tensor) else x for x in leaves]

    def backward(ctx: Any, *grads: Any) -> Any:
        saved = ctx.saved_tensors
        if not word().grad:  # nobody differentiates the gradient, so it has no history
            saved = [None if x is None else bare(x) for x in saved]
        moving = [i for i, x in enumerate(saved) if x is not None and is_differentiable(x.dtype)]

        def run(*tensors: Tensor) -> list[Tensor]:
            leaves = [s if x is None else x for x, s in zip(saved, ctx.statics, strict=True)]
            for i, x in zip(moving, tensors, strict=True):
                leaves[i] = x
            values = tree.unflatten(ctx.spec, leaves)
            return floating(composed(*values[:n], **dict(zip(names, values[n:], strict=True))))

        vjp = load("polyop.layers.autograd.transforms:vjp")
        found = vjp(run, *[saved[i] for i in moving])[1](floating(grads))
        return _mirrored(ctx.spec, len(saved), moving, found)

    return AutogradRule(backward, setup)


def floating(results: Any) -> list[Tensor]:
    """Give the tensors, in a row, that gradients flow through."""
    flat = flatten_results(results)[0]
    return [t for t in flat if isinstance(t, Tensor) and is_differentiable(t.dtype)]


def _mirrored(spec: Any, count: int, moving: Sequence[int], found: Sequence[Any]) -> Any:
    leaves: list[Any] = [None] * count
    for i, g in zip(moving, found, strict=True):
        leaves[i] = g
    return tuple(tree.unflatten(spec, leaves))
