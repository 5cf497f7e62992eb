"""Operators of authors are made known to each framework that has a bridge, once it is imported."""

from __future__ import annotations

import sys
from functools import partial

from polyop.bridges.imports import when_imported
from polyop.dispatch.operator import OpOverload
from polyop.lazy import load

#: By the name of a framework: its bridge: `define`, `remove`, `takes`, `call`, `call_tensors`.
BRIDGES = {"torch": "polyop.bridges.torch.bridge", "jax": "polyop.bridges.jax.bridge"}


def defined(op: OpOverload) -> None:
    """Make an operator known to each framework that has a bridge, now or when it is imported."""
    if op.is_builtin:
        return
    for framework, define in _DEFINE.items():
        when_imported(framework, define, op)


def _define(framework: str, op: OpOverload) -> None:
    load(BRIDGES[framework]).define(op)


_DEFINE = {framework: partial(_define, framework) for framework in BRIDGES}


def removed(op: OpOverload) -> None:
    """Undo what `defined` did."""
    for place in BRIDGES.values():
        if place in sys.modules:  # else it knows of none
            load(place).remove(op)
