"""Tangents of calls that no `autograd.Function` sees: computed beside the call.

Such are calls in compiled regions, and those of PyTorch's own handle of an operator
(`torch.ops.ns.name`), which PyTorch would give no tangent in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from polyop.bridges.torch.arrays import Call, placed, split
from polyop.bridges.torch.gradient import setup
from polyop.bridges.torch.kernel import filled
from polyop.bridges.torch.tangents import tangents
from polyop.bridges.torch.written import BARE
from polyop.errors import AutogradError, MissingKernelError

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
    return dual(bridge, Call(bridge.op, bridge.plan, bridge.target, kept), pairs)


def bare(bridge: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
    """Call PyTorch's handle of an operator on duals; `NotImplemented` if none of them is one."""
    values = filled(bridge.plan, args, named)
    row, kept = split(bridge.plan, values)
    pairs = [unpack_dual(t) for t in row]
    if all(pair.tangent is None for pair in pairs):
        return NotImplemented
    token = BARE.set(True)  # PyTorch is at its autograd key already
    try:
        return dual(bridge, Call(bridge.op, bridge.plan, bridge.target, kept), pairs)
    except MissingKernelError as error:
        raise AutogradError(
            f"the tangents of {bridge.op.name()} cannot be computed from its backward where "
            "torch.func calls PyTorch's handle of it",
            op=bridge.op._schema,
            source=bridge.op.rule_source("backward"),
            fix="call the operator itself, as polyop.ops has it; or give it a rule with "
            f"polyop.library.register_jvp({bridge.op.name()!r}, jvp)",
        ) from error
    finally:
        BARE.reset(token)


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
