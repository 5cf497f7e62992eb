"""The tangent of a greatest or least element: that of the element, which is looked up.

The text multiplies all tangents by a mask, and adds them up. Where each element is one of a kind,
as most are, to look for its place takes one pass over the values and none over the tangents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polyop.dispatch.operator import Handler, OpOverload
from polyop.layers.autograd.folded import folding
from polyop.layers.autograd.paired import LARGE, PairedLoops
from polyop.layers.autograd.text_tangents import TangentRule, Tangents, TextTangents
from polyop.ops.axes import SINGLE, is_half, normal_axes
from polyop.tensor.tensor import of_array

Array = np.ndarray[Any, Any]


class ExtremeTangents(TextTangents):
    """The rule of `max` and `min`."""

    def __init__(self, op: OpOverload, texts: Any, otherwise: TangentRule) -> None:
        super().__init__(op, texts, otherwise)
        self.folds = PairedLoops(op, folding(op))

    def at_once(
        self, call: Handler, values: Sequence[Any], tangents: Tangents
    ) -> tuple[Any, Sequence[Any]]:
        """Run the operator, and look the tangents up where that can be done."""
        x, g = values[0].payload, tangents[0].payload
        if x.size >= LARGE:
            found = self.folds.run(values, tangents, 0, x.dtype)
            if found is not None:
                return found
        if not _is_quick(x, g, values[1]):
            return super().at_once(call, values, tangents)
        out = call(*values)
        d = _of_peaks(x, g, out.payload)
        return self._pushed(out, values, tangents) if d is None else (out, (of_array(d),))


def _is_quick(x: Array, g: Array, axis: Any) -> bool:
    """Tell whether what each result is of lies together."""
    if x.dtype.kind != "f" or not x.dtype.isnative or g.dtype is not x.dtype or not x.size:
        return False
    if not (x.flags.c_contiguous and g.flags.c_contiguous):
        return False
    if axis is None:
        return True
    axes = normal_axes("max", axis, x.ndim)
    wide = [a for a, n in enumerate(x.shape) if n != 1]
    gone = [a for a in wide if a in axes]
    return wide[len(wide) - len(gone) :] == gone


def _of_peaks(x: Array, g: Array, r: Array) -> Array | None:
    """Give the tangents of results; None if of several some tie, or are NaN."""
    tops = r.reshape(-1, 1)
    peaks = x.reshape(tops.size, -1) == tops
    count = np.count_nonzero(peaks)
    if tops.size == 1:
        d = g.reshape(-1)[peaks.argmax()] if count == 1 else _shared(x, g, peaks)
        return np.asarray(d, r.dtype).reshape(r.shape)
    if count != tops.size or np.isnan(tops).any():
        return None
    return g.reshape(-1)[np.flatnonzero(peaks)].reshape(r.shape)


def _shared(x: Array, g: Array, peaks: Array) -> Any:
    """Give the tangent of elements that tie: they share the gradient, so it is their mean."""
    found = np.flatnonzero(peaks)
    if not found.size:  # NaN, which is not equal to itself
        found = np.flatnonzero(np.isnan(x))
    wide = SINGLE if is_half(g.dtype) else None
    return np.add.reduce(g.reshape(-1)[found], None, wide) / found.size
