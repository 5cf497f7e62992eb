"""When results and tangents of large arrays come from one loop of C, not from NumPy's passes.

A rule counts its calls on large arrays. From the third of a kind on a thread builds a loop for it
(`compile/fused/pairs.py`), or finds it on the disk; until it is there, and where there is none
(no compiler, a kernel that is not ours, steps that have not NumPy's bits), NumPy's passes go on.
The numbers are the same, so nobody is told. A rule goes when its operator changes, its loops too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from polyop.devices import DType
from polyop.dispatch.bits import NUMPY
from polyop.dispatch.entry import first_kernel
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import places_of
from polyop.layers.autograd.building import BUILDER
from polyop.tensor.tensor import Tensor

#: From so many elements on a pass over memory costs more than all around it.
LARGE = 1 << 15
#: How many calls of a kind go by before a loop is built.
PATIENT = 3
#: Where this variable is 1, no loops are built.
SWITCH = "POLYOP_NO_LOOPS"

DTYPES = frozenset(np.dtype(kind) for kind in (np.float32, np.float64))
#: Which arguments have a tangent, as the rule numbers it, and the number of the dtype.
Kind = tuple[int, int]
#: The result, and its tangent in a row; None if only that is still to be computed.
Found = tuple[Tensor, Any]
#: `(values, tangents)`; it gives None where the loop is not for them.
Loop = Callable[[Sequence[Any], Sequence[Any]], Found | None]
Kernel = Callable[..., Any]
#: `(kernel, which, dtype)`, of arrays of one dtype; None where a loop saves nothing.
Make = Callable[[Kernel, int, DType], Loop | None]


class PairedLoops:
    """The loops of one rule, by which tangents there are, and the dtype of all arrays."""

    __slots__ = ("loops", "make", "op", "seen")

    def __init__(self, op: OpOverload, make: Make) -> None:
        self.op = op
        self.make = make
        self.seen: dict[Kind, int] = {}
        self.loops: dict[Kind, Loop] = {}

    def run(
        self, values: Sequence[Any], tangents: Sequence[Any], which: int, dtype: DType
    ) -> Found | None:
        """Give the result and its tangent, or None where NumPy is to compute them."""
        kind = (which, dtype.num)
        loop = self.loops.get(kind)
        if loop is not None:
            return loop(values, tangents)
        seen = self.seen[kind] = self.seen.get(kind, 0) + 1
        if seen == PATIENT and dtype in DTYPES and os.environ.get(SWITCH) != "1":
            self._ask_for(kind)
        return None

    def _ask_for(self, kind: Kind) -> None:
        """Have a loop built, if the kernel is the one that it was written after."""
        kernel = first_kernel(self.op, NUMPY)
        if kernel is not None and kernel.payload and kernel.owner is places_of(self.op.name()):
            BUILDER.put(partial(self._build, kind, cast("Kernel", kernel.fn)))

    def _build(self, kind: Kind, kernel: Kernel) -> None:
        which, number = kind
        dtype = next(d for d in DTYPES if d.num == number)  # the object that arrays have
        made = self.make(kernel, which, dtype)
        if made is not None:
            self.loops[kind] = made
