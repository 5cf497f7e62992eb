"""The frequencies of Fourier transforms, and their order: zero at the front or in the middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polyop.errors import ArgumentError, UsageTypeError
from polyop.ops.axes import normal_axes
from polyop.ops.door import takes
from polyop.ops.factories import FLOAT32, arange
from polyop.ops.joining import concat, roll
from polyop.ops.rounding import astype

Fn = Callable[..., Any]


@takes("SymInt n, float d")
def fftfreq(n: Any, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
    """Give the frequencies of `fft`, for `n` elements that are `d` apart."""
    high = (n + 1) // 2
    both = [
        arange(high, dtype=_INT, device=device),
        arange(-(n // 2), 0, dtype=_INT, device=device),
    ]
    return _frequencies(concat(both), n, d, dtype)


@takes("SymInt n, float d")
def rfftfreq(n: Any, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
    """Give the frequencies of `rfft`, for `n` real elements that are `d` apart."""
    return _frequencies(arange(n // 2 + 1, dtype=_INT, device=device), n, d, dtype)


_INT = np.dtype(np.int64)


def _frequencies(counts: Any, n: Any, d: float, dtype: Any) -> Any:
    if isinstance(n, int) and n < 1:
        raise ArgumentError("there are no frequencies of no elements", argument="n", seen=n)
    wide = astype(counts, np.dtype(np.float64)) / (n * d)
    dtype = FLOAT32 if dtype is None else np.dtype(dtype)
    if dtype.kind not in "fV":
        raise UsageTypeError("frequencies are floating-point numbers", seen=dtype)
    return wide if dtype == wide.dtype else astype(wide, dtype)


@takes("Tensor x, int[1]? axes")
def fftshift(x: Any, /, *, axes: Any = None) -> Any:
    """Move the frequency zero from the front to the middle."""
    return _shifted(x, axes, lambda n: n // 2)


@takes("Tensor x, int[1]? axes")
def ifftshift(x: Any, /, *, axes: Any = None) -> Any:
    """Undo `fftshift`."""
    return _shifted(x, axes, lambda n: -(n // 2))


def _shifted(x: Any, axes: Any, by: Fn) -> Any:
    given = [axes] if isinstance(axes, int) else axes
    found = normal_axes("roll", given, len(x.shape))
    return roll(x, [by(x.shape[a]) for a in found], axis=list(found)) if found else x.clone()


__all__ = ["fftfreq", "fftshift", "ifftshift", "rfftfreq"]
