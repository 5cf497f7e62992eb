"""Operators are found in `torch.ops` from their definition on, and made there when one looks."""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakSet

import torch

from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.lazy import load

_Namespace: Any = type(torch.ops.aten)
_DEFINE: Any = torch.library.Library.define.__code__
#: The operators that nobody has looked at in PyTorch.
WAITING: WeakSet[OpOverload] = WeakSet()


class Waiting(_Namespace):  # type: ignore[misc]
    """A namespace of `torch.ops` in which operators of ours are to be found."""

    __module__: str = _Namespace.__module__  # PyTorch makes the names of operators from it

    def __getattr__(self, name: str) -> Any:
        # PyTorch asks for a name before it defines it: one that only we define stays free.
        if sys._getframe(1).f_code is not _DEFINE:
            make_known(self.name, name)
        # What was made by that is listed already; listed twice, it would outlive its removal.
        return vars(self).get(name) or super().__getattr__(name)


def make_known(namespace: str, name: str) -> None:
    """Make operators of a name known to PyTorch; what hinders it is said at a call."""
    with LOCK:
        found = [
            op for op in WAITING if op.namespace == namespace and op._schema.short_name == name
        ]
        WAITING.difference_update(found)
    for op in found:
        load("polyop.bridges.torch.bridge:define")(op)


def announce(op: OpOverload) -> None:
    """Let an operator be found; at once, if others of its name have been looked at."""
    space = getattr(torch.ops, op.namespace)
    if space.__class__ is _Namespace:
        space.__class__ = Waiting
    if op._schema.short_name in space.__dict__:
        load("polyop.bridges.torch.bridge:define")(op)
    else:
        WAITING.add(op)
