"""Runs the kernels that compiled programs call, on views of the programs' own memory."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from sys import getrefcount
from typing import Any

import numpy as np

from polyop import tree
from polyop.bridges.jax.ffi import PLANS
from polyop.bridges.jax.forms import read
from polyop.bridges.jax.frames import LOCK, MOST, Frame
from polyop.bridges.jax.results import check_count, differs, keeps, kernel_array, own_if_small
from polyop.devices import DTYPES
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.operator import OpOverload
from polyop.tensor.tensor import Tensor, of_array

Buffer = np.ndarray[Any, Any]
#: What JAX has for a dtype in programs without numbers of 64 bits.
NARROW = {
    DTYPES[wide]: DTYPES[narrow]
    for wide, narrow in {
        "int64": "int32", "uint64": "uint32", "float64": "float32", "complex128": "complex64",
    }.items()
}  # fmt: skip


class Plan:
    """Runs the calls of one text.

    Attributes:
        frame: what the text stands for.
        wide: whether its program has numbers of 64 bits.
    """

    __slots__ = ("frame", "wide")

    def __init__(self, frame: Frame, wide: bool) -> None:
        self.frame = frame
        self.wide = wide

    def run(self, inputs: Sequence[Buffer], places: Sequence[Buffer]) -> None:
        """Run the kernel on the operands of a call, and fill its results.

        Raises:
            MetadataMismatchError: a result is not what the program was compiled for.
            KernelError: the kernel keeps an operand.
        """
        given = [own_if_small(x) for x in inputs]
        counts = [getrefcount(x) for x in given]
        self.fill(given, places)
        if counts != [getrefcount(x) for x in given]:
            gc.collect()  # what only waits to be collected keeps nothing
            if counts != [getrefcount(x) for x in given]:
                keeps(self.frame)

    def fill(self, given: Sequence[Buffer], places: Sequence[Buffer]) -> None:
        """Run the kernel, and copy what it gives to where the program wants it."""
        frame = self.frame
        out = run_under(PLAIN, frame.run, map(of_array, given))
        made = [out] if out.__class__ is Tensor else tree.leaves(out)
        check_count(frame, len(places), len(made))
        for i, (t, place) in enumerate(zip(made, places, strict=True)):
            found = kernel_array(frame, t)
            if found.shape != place.shape:
                differs(frame, f"the shape of result {i}", place.shape, found.shape)
            if found.dtype != place.dtype and not self.fits(found.dtype, place.dtype):
                differs(frame, f"the dtype of result {i}", place.dtype, found.dtype)
            place[...] = found

    def fits(self, found: Any, wanted: Any) -> bool:
        """Tell whether a dtype is one that JAX has in the place of another."""
        return not self.wide and NARROW.get(found, found) == wanted


def plan_of(text: bytes) -> Plan:
    """Find what runs the calls of a text.

    Raises:
        OperatorNotFoundError: its operator is not defined in this process.
        OperatorGoneError: it was removed.
    """
    made = Plan(*read(text.decode()))
    with LOCK:
        if len(PLANS) >= MOST:
            PLANS.clear()
        PLANS[text] = made
    return made


def forget(op: OpOverload) -> None:
    """Forget how the calls of an operator run."""
    with LOCK:
        for text in [t for t, plan in PLANS.items() if plan.frame.op is op]:
            del PLANS[text]
