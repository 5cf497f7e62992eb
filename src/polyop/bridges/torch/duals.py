"""Calls in compiled regions: of the operator itself, and tangents, which it has none of, beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from polyop.bridges.torch.arrays import Call, placed, split
from polyop.bridges.torch.gradient import setup
from polyop.bridges.torch.tangents import tangents

forward_ad: Any = torch.autograd.forward_ad  # without types
unpack_dual: Any = forward_ad.unpack_dual


def compiled(bridge: Any, values: Sequence[Any]) -> Any:
    """Call the operator itself; tangents, which it has none of, are computed beside."""
    row, kept = split(bridge.plan, values)
    pairs = [unpack_dual(t) for t in row]
    if all(pair.tangent is None for pair in pairs):
        if bridge.is_unseen(row):
            raise RuntimeError(bridge.unseen_text)  # PyTorch's compiler makes no other class
        return bridge.target(*values)
    call = Call(bridge.op, bridge.plan, bridge.target, kept)
    return dual(bridge, call, pairs)


class Kept:
    """Stands for PyTorch's `ctx` where the tangents are computed beside the call."""

    def __init__(self) -> None:
        self.saved_tensors: tuple[Any, ...] = ()
        self.kept: Any = None

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors."""
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Say nothing: tangents of these are None."""

    def set_materialize_grads(self, value: bool) -> None:
        """Say nothing: absent tangents are None."""


def dual(bridge: Any, call: Call, pairs: Sequence[Any]) -> Any:
    """Run the operator on the primals, and the tangents' rule beside it."""
    bridge.refuse_unseen([pair.primal for pair in pairs])
    primals = [pair.primal for pair in pairs]
    outs = call.in_a_row(bridge.invoke(placed(call.values, primals)))
    ctx = Kept()
    setup(ctx, call, primals, outs, [pair.tangent is not None for pair in pairs])
    found = tangents(ctx, [pair.tangent for pair in pairs])
    duals = [
        out if t is None else forward_ad.make_dual(out, t)
        for out, t in zip(outs, found, strict=True)
    ]
    return call.answer(duals)
