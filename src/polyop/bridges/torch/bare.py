"""The rules of PyTorch's own handle of an operator (`torch.ops.ns.name`): gradient and batch.

PyTorch hands over the arguments as they were written, lists in their places, and leaves out the
last ones that are equal to their defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from polyop.bridges.torch.arrays import At, Call, split
from polyop.bridges.torch.batching import batched
from polyop.bridges.torch.gradient import backward, setup
from polyop.bridges.torch.kernel import filled
from polyop.bridges.torch.written import BARE


def refuse_bare(bridge: Any, args: Sequence[Any], named: dict[str, Any]) -> None:
    """Refuse a write that gradients would not see.

    Raises:
        MutationError: the operator writes, and a gradient is asked for.
    """
    bridge.refuse_unseen(split(bridge.plan, filled(bridge.plan, args, named))[0])


def bare_setup(bridge: Any, ctx: Any, inputs: Any, output: Any) -> None:
    """Keep what the gradient needs."""
    row, kept = split(bridge.plan, filled(bridge.plan, inputs, {}))
    call = Call(bridge.op, bridge.plan, bridge.target, kept)
    call.single = bridge.target
    outs = call.in_a_row(output)
    setup(ctx, call, row, outs, [t.requires_grad for t in row])


def bare_backward(ctx: Any, *grads: Any) -> Any:
    """Give the gradients of the arguments that PyTorch has handed on."""
    call: Call = ctx.kept.call
    needs = [False] * len(ctx.kept.inputs)
    given = ctx.needs_input_grad
    # PyTorch has left out the last arguments that are equal to their defaults.
    for value, need in zip(call.values, given, strict=False):
        for i, at in enumerate(value if value.__class__ is list else [value]):
            if at.__class__ is At:
                needs[at.number] = bool(need[i] if isinstance(need, list | tuple) else need)
    row = [g for value in grads for g in (value if isinstance(value, list | tuple) else [value])]
    return tuple(call.mirrored(backward(ctx, needs, row))[: len(given)])


def bare_vmap(bridge: Any, info: Any, in_dims: Any, *args: Any, **named: Any) -> Any:
    """Run a whole batch; where it is a loop, the handle is called for each sample."""
    row, kept = split(bridge.plan, filled(bridge.plan, args, named))
    call = Call(bridge.op, bridge.plan, bridge.target, kept)
    dims = [d for value, axes in zip(args, in_dims, strict=True) for d in _dims(value, axes)]
    token = BARE.set(True)
    try:
        outs, out_dims = batched(info, call, row, dims, bridge.target)
    finally:
        BARE.reset(token)
    if not bridge.plan.results:
        return None, None
    found, axes = call.laid_out(outs), call.laid_out(out_dims)
    return (found[0], axes[0]) if len(found) == 1 else (tuple(found), tuple(axes))


def _dims(value: Any, axes: Any) -> list[Any]:
    if isinstance(value, torch.Tensor):
        return [axes]
    if isinstance(value, list | tuple):
        spread = axes if isinstance(axes, list | tuple) else [axes] * len(value)
        pairs = zip(value, spread, strict=True)
        return [d for v, d in pairs if isinstance(v, torch.Tensor)]
    return []
