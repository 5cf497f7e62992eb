"""Operators of authors are made known to a framework when its arrays come, or its compiler.

Making an operator known costs more than defining it, and takes its name in the framework; most
operators never meet its arrays. Only PyTorch's compiler must know an operator before the first
call that it sees.
"""

from __future__ import annotations

import sys

from polyop.bridges.imports import when_imported
from polyop.dispatch.operator import OpOverload
from polyop.lazy import load

#: By the name of a framework: its bridge: `define`, `remove`, `takes`, `call`, `call_tensors`.
BRIDGES = {"torch": "polyop.bridges.torch.bridge", "jax": "polyop.bridges.jax.bridge"}


def defined(op: OpOverload) -> None:
    """Make an operator known to the compiler that must know it, now or when it is imported."""
    if op.is_builtin:
        return
    when_imported("torch._dynamo", _define_in_torch, op)


def _define_in_torch(op: OpOverload) -> None:
    load(BRIDGES["torch"]).define(op)


def removed(op: OpOverload) -> None:
    """Undo what `defined` did."""
    for place in BRIDGES.values():
        if place in sys.modules:  # else it knows of none
            load(place).remove(op)
