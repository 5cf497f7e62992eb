"""The tangents of sums and means of large arrays, by a loop of C that goes once over both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyop.devices import DType
from polyop.dispatch.operator import Handler, OpOverload
from polyop.layers.autograd.linear import LinearTangents
from polyop.layers.autograd.paired import LARGE, Kernel, Loop, Make, PairedLoops
from polyop.lazy import load


def folding(op: OpOverload) -> Make:
    """Give what builds the loops of a reduction."""
    name = op._opname

    def make(_kernel: Kernel, _which: int, dtype: DType) -> Loop | None:
        made: Loop = load("polyop.compile.fused.folds:make_fold")(name, dtype)
        return made

    return make


class SumTangents(LinearTangents):
    """The rule of `sum` and `mean`."""

    def __init__(self, op: OpOverload, places: tuple[int, ...]) -> None:
        super().__init__(op, places)
        self.loops = PairedLoops(op, folding(op))

    def at_once(
        self, call: Handler, values: Sequence[Any], tangents: Sequence[Any]
    ) -> tuple[Any, Sequence[Any]]:
        """Run the loop where there is one, and else the operator on both."""
        x = values[0].payload
        if x.size >= LARGE:
            found = self.loops.run(values, tangents, 0, x.dtype)
            if found is not None:
                return found
        return self._both(call, values, tangents)
