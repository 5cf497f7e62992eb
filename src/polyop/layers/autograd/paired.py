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
from typing import Any, NamedTuple, cast

import numpy as np

from polyop.devices import DType
from polyop.dispatch.bits import NUMPY
from polyop.dispatch.entry import first_kernel
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import places_of
from polyop.layers.autograd.building import BUILDER
from polyop.layers.autograd.steps import Places, Written
from polyop.lazy import load
from polyop.tensor.tensor import Tensor

#: From so many elements on a pass over memory costs more than all around it.
LARGE = 1 << 15
#: How many calls of a kind go by before a loop is built.
PATIENT = 3
#: Where this variable is 1, no loops are built.
SWITCH = "POLYOP_NO_LOOPS"

DTYPES = frozenset(np.dtype(kind) for kind in (np.float32, np.float64))
Kind = tuple[tuple[int, ...], bool, DType]
Found = tuple[Tensor, tuple[Tensor]]
#: `(values, tangents)`; it gives None where the loop is not for them.
Loop = Callable[[Sequence[Any], Sequence[Any]], Found | None]
Kernel = Callable[..., Any]


class Wanted(NamedTuple):
    """What a loop is to compute.

    Attributes:
        kernel: of the operator, on bare arrays.
        written: the steps of the tangent.
        places: the arguments.
        dtype: of all arrays.
    """

    kernel: Kernel
    written: Written
    places: Places
    dtype: DType


class PairedLoops:
    """The loops of one rule, by which tangents there are, whether of one tensor, and the dtype."""

    __slots__ = ("loops", "op", "seen", "write")

    def __init__(self, op: OpOverload, write: Callable[[Places], Written | None]) -> None:
        self.op = op
        self.write = write
        self.seen: dict[Kind, int] = {}
        self.loops: dict[Kind, Loop] = {}

    def run(self, values: Sequence[Any], tangents: Sequence[Any], places: Places) -> Found | None:
        """Give the result and its tangent, or None where NumPy is to compute them."""
        dtype = values[places.tensors[0]].payload.dtype
        kind = (places.needs, places.same, dtype)
        loop = self.loops.get(kind)
        if loop is not None:
            return loop(values, tangents)
        seen = self.seen[kind] = self.seen.get(kind, 0) + 1
        if seen == PATIENT and dtype in DTYPES:
            self._ask_for(kind, places)
        return None

    def _ask_for(self, kind: Kind, places: Places) -> None:
        """Have a loop built, where one can be, and saves anything."""
        written = self.write(places)
        if written is None or not _pays(written, places) or os.environ.get(SWITCH) == "1":
            return
        kernel = first_kernel(self.op, NUMPY)
        ours = kernel is not None and kernel.payload and kernel.owner is places_of(self.op.name())
        if kernel is not None and ours:
            dtype = np.dtype(kind[2].type)  # the object that arrays have
            wanted = Wanted(cast("Kernel", kernel.fn), written, places, dtype)
            BUILDER.put(partial(self._build, kind, wanted))

    def _build(self, kind: Kind, wanted: Wanted) -> None:
        (made,) = load("polyop.compile.fused.pairs:make_loops")([wanted])
        if made is not None:
            self.loops[kind] = made


def _pays(written: Written, places: Places) -> bool:
    """Tell whether a loop saves anything.

    A tangent that is an argument's costs nothing. Where a tangent reads neither the result nor an
    array that this is made of, only two passes over two arrays each gain, by being one call.
    """
    if written.result.startswith("g"):
        return False
    shared = ["r", *(f"x{i}" for i in places.values)]
    return not places.statics or not written.reads.isdisjoint(shared)
