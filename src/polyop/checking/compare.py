"""How results are compared, and what is said of the place where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.checking.sample import Array, array_of
from polyop.errors import OpCheckError
from polyop.tensor.tensor import Tensor

#: The relative and absolute tolerance of each dtype; others are compared exactly.
TOLERANCES = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1e-5, 1e-5),
    "complex64": (1e-5, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex128": (1e-7, 1e-7),
}
Tolerance = tuple[float | None, float | None]

#: The distance of one and the next number, where it is so large that sums of many show it.
STEPS = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "complex64": 2**-23}
#: How much more than chance sums in another order may differ, and how much they may at most.
LUCK, MOST_ROUNDED = 2.0, 1 / 8


def reordered(wanted: Any, terms: int) -> Tolerance:
    """Give the tolerance for sums of so many terms that are taken in another order."""
    if not isinstance(wanted, Tensor) or wanted.dtype.name not in STEPS:
        return None, None
    rtol, atol = TOLERANCES[wanted.dtype.name]
    array = np.abs(array_of(wanted).astype("complex64"))
    largest = float(array[np.isfinite(array)].max(initial=0.0))
    share = min(LUCK * STEPS[wanted.dtype.name] * terms**0.5, MOST_ROUNDED)
    return rtol, atol + share * largest


def same_bits(a: Any, b: Any) -> bool:
    """Tell whether two values are the same, bit for bit for tensors."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        p, q = array_of(a), array_of(b)
        return p.dtype == q.dtype and p.shape == q.shape and p.tobytes() == q.tobytes()
    return type(a) is type(b) and bool(a == b or repr(a) == repr(b) == "nan")


def difference(a: Any, b: Any, tolerance: Tolerance = (None, None)) -> str:
    """Say where `a` differs from `b` by more than rounding; nothing if it does not."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return array_difference(array_of(a), array_of(b), tolerance)
    if isinstance(a, float) and isinstance(b, float):
        return array_difference(np.asarray(a), np.asarray(b), tolerance)
    return "" if same_bits(a, b) else f"{a!r} instead of {b!r}"


def array_difference(a: Array, b: Array, tolerance: Tolerance = (None, None)) -> str:
    """Say where two arrays differ by more than rounding; nothing if they do not."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype}{list(a.shape)} instead of {b.dtype}{list(b.shape)}"
    rtol, atol = TOLERANCES.get(a.dtype.name, (0.0, 0.0))
    if tolerance[0] is not None and tolerance[1] is not None:
        rtol, atol = tolerance  # type: ignore[assignment]
    bad = _beyond(a, b, rtol, atol)
    if not bad.any():
        return ""
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    at = f" at {list(place)}" if place else ""
    return f"{a[place]} instead of {b[place]}{at} ({int(bad.sum())} of {a.size} elements differ)"


def _beyond(a: Array, b: Array, rtol: float, atol: float) -> Array:
    """Mark the elements that differ; equal ones, infinities and nan at one place do not."""
    if a.dtype.kind not in "fcV" or a.dtype.names:
        return np.asarray(a != b)
    wide = "complex128" if a.dtype.kind == "c" else "float64"
    p, q = a.astype(wide), b.astype(wide)
    with np.errstate(all="ignore"):
        near = np.abs(p - q) <= atol + rtol * np.abs(q)
    return np.asarray(~(near | (p == q) | (np.isnan(p) & np.isnan(q))))


def compare_leaves(
    got: list[tuple[str, Any]],
    wanted: list[tuple[str, Any]],
    tolerance: Tolerance | list[Tolerance],
    problem: str,
    **parts: Any,
) -> None:
    """Compare two lists of named values, with one tolerance or one for each.

    Raises:
        OpCheckError: they differ; `problem` has a place for the name.
    """
    if len(got) != len(wanted):
        seen = f"{len(got)} results instead of {len(wanted)}"
        raise OpCheckError(problem.format("the number of results"), seen=seen, **parts)
    each = tolerance if isinstance(tolerance, list) else [tolerance] * len(wanted)
    for (name, a), (_, b), near in zip(got, wanted, each, strict=True):
        seen = difference(a, b, near)
        if seen:
            raise OpCheckError(problem.format(name), seen=seen, **parts)
