"""The tangents of products and powers, which know their results: `d r / r` is a sum of quotients.

The texts leave elements out one by one, or raise to another power, so that zeros are right. Where
all results are normal numbers nothing is zero, and the quotients are as exact, for a fifth of the
time. Where a result, or what is made of it, is no normal number, the text goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.dispatch.operator import Handler, OpOverload
from polyop.layers.autograd.paired import LARGE, Kernel, Loop, PairedLoops
from polyop.layers.autograd.text_tangents import TangentRule, Tangents, TextTangents
from polyop.lazy import load
from polyop.ops.axes import normal_axes
from polyop.tensor.tensor import of_array

Array = np.ndarray[Any, Any]


class _ByQuotients(TextTangents):
    """A rule that tries quotients first."""

    def at_once(
        self, call: Handler, values: Sequence[Any], tangents: Tangents
    ) -> tuple[Any, Sequence[Any]]:
        """Run the operator, and the quotients where its results allow them."""
        if any(values[i].payload.dtype.kind == "c" for i in self.tensors):
            return self.otherwise(values, tangents)
        out, clean = self.result(call, values)
        arrays = [getattr(t, "payload", t) for t in (*values, out, *tangents)]
        dtype = arrays[len(values)].dtype
        given = (a.dtype for a in arrays if isinstance(a, np.ndarray))
        if clean and dtype.kind == "f" and all(d is dtype for d in given):
            d = self._tried(arrays, arrays[len(values)], arrays[len(values) + 1 :])
            if d is not None:
                return out, (of_array(d),)
        return self._pushed(out, values, tangents)

    def result(self, call: Handler, values: Sequence[Any]) -> tuple[Any, bool]:
        """Run the operator; tell whether its results may have all of their digits."""
        return call(*values), True

    def _tried(self, values: Sequence[Any], r: Array, slopes: Sequence[Any]) -> Array | None:
        """Give the tangent, or None where a quotient loses digits: it is below normal numbers."""
        with np.errstate(all="ignore", under="raise"), suppress(FloatingPointError):
            return self.quotients(values, r, slopes)
        return None

    def quotients(self, values: Sequence[Any], r: Array, slopes: Sequence[Any]) -> Array | None:
        """Give the tangent of the result, or None."""
        raise NotImplementedError


class ProductTangents(_ByQuotients):
    """The rule of `prod`."""

    def result(self, call: Handler, values: Sequence[Any]) -> tuple[Any, bool]:
        """Run the operator; a product may be normal that was below normal numbers on its way."""
        try:
            with np.errstate(all="raise"):
                return call(*values), True
        except FloatingPointError:
            return call(*values), False  # what is said of it is up to the caller's settings

    def quotients(self, values: Sequence[Any], r: Array, slopes: Sequence[Any]) -> Array | None:
        """Add the quotients up along the axes that are gone."""
        axis = values[1]
        if not _are_normal(r):
            return None
        terms = slopes[0] / values[0]
        total = np.add.reduce(terms, normal_axes("prod", axis, terms.ndim), keepdims=values[3])
        return np.asarray(r * total) if np.isfinite(total).all() else None


class PowerTangents(_ByQuotients):
    """The rule of `pow` of two tensors; large arrays have loops of C, with the same bits."""

    def __init__(self, op: OpOverload, texts: Any, otherwise: TangentRule) -> None:
        super().__init__(op, texts, otherwise)
        self.tails = PairedLoops(op, _tail)

    def _tried(self, values: Sequence[Any], r: Array, slopes: Sequence[Any]) -> Array | None:
        if r.size >= LARGE:
            which = (slopes[0] is not None) | (slopes[1] is not None) << 1
            with np.errstate(all="ignore"):
                found = self.tails.run((*values[:2], r), slopes, which, r.dtype)
            if found is not None:
                return found[1][0]  # type: ignore[no-any-return]
        return super()._tried(values, r, slopes)

    def quotients(self, values: Sequence[Any], r: Array, slopes: Sequence[Any]) -> Array | None:
        """Give `r * (b da / a + log(a) db)`."""
        a, b = values[:2]
        if not _are_normal(r) or (slopes[1] is not None and not (a > 0).all()):
            return None
        terms = []
        if slopes[0] is not None:
            terms.append(_over(np.divide, slopes[0] * b, a))
        if slopes[1] is not None:
            terms.append(_over(np.multiply, np.log(a), slopes[1]))
        total = terms[0] if len(terms) == 1 else _over(np.add, *terms)
        found = np.asarray(_over(np.multiply, total, r))
        return found if found.shape == r.shape and np.isfinite(found).all() else None


def _tail(_kernel: Kernel, which: int, dtype: DType) -> Loop | None:
    """Build the loop of what is beside the power itself."""
    made: Loop = load("polyop.compile.fused.powers:make_power")(which, dtype)
    return made


def _over(ufunc: np.ufunc, array: Any, other: Any) -> Any:
    """Call a ufunc that writes over its first argument where the result fits there."""
    alike = array.__class__ is np.ndarray and array.shape == np.shape(other)
    return ufunc(array, other, array) if alike else ufunc(array, other)


class _Squares(TextTangents):
    """The rule of `pow` with a number above, where that is two."""

    def _loop(self, kernel: Kernel, which: int, dtype: DType) -> Loop | None:
        """Build a loop of products: a square of NumPy's is one, to the last bit."""
        return super()._loop(lambda a, _: np.multiply(a, a), which, dtype)


class NumberPowerTangents(_ByQuotients):
    """The rule of `pow` with a number above: squares, the most common, have a text of their own."""

    def __init__(self, op: OpOverload, texts: Any, otherwise: TangentRule) -> None:
        super().__init__(op, texts, otherwise)
        self.squares = _Squares(op, {"a": "g * conj(a * 2)"}, otherwise)

    def at_once(
        self, call: Handler, values: Sequence[Any], tangents: Tangents
    ) -> tuple[Any, Sequence[Any]]:
        """Run the operator, and the text that is for its exponent."""
        if values[1] == 2:
            return self.squares.at_once(call, values, tangents)
        return super().at_once(call, values, tangents)

    def quotients(self, values: Sequence[Any], r: Array, slopes: Sequence[Any]) -> Array | None:
        """Give `r b da / a`; whole exponents have exact powers."""
        a, b = values[:2]
        if b.__class__ is not float or b.is_integer() or not _are_normal(r):
            return None
        found = np.asarray(_over(np.multiply, _over(np.divide, slopes[0] * b, a), r))
        return found if np.isfinite(found).all() else None


def _are_normal(r: Array) -> bool:
    """Tell whether no result is zero, subnormal, infinite or NaN."""
    if not r.size:
        return True
    limits, low, high = load("polyop.ops.dtypes:finfo")(r.dtype), r.min(), r.max()
    if not low > 0:  # some are negative, or NaN
        size = np.abs(r)
        low, high = size.min(), size.max()
    return bool(low >= limits.smallest_normal and high <= limits.max)
