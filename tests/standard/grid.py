"""Every dtype's hostile values in a row, and a comparison with NumPy that sees each bit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tests.standard.arrays import Array, into, quiet

import polyop as xp

REAL_VALUES = [
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -2.5, 3.0, math.inf, -math.inf, math.nan, 1e-45, 5e-324,
    1e30, -1e30, 2.0**31, 2.0**63, 0.1, -7.25, 1e308,
]  # fmt: skip
PARTS = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 0.5, 1e30]
#: Python's numbers at the edges of every dtype.
NUMBERS: list[Any] = [
    True, False, 0, 1, -1, 3, 127, 128, 255, 256, -128, -129, 2**31, 2**63 - 1, 2**63, 2**64 - 1,
    -(2**63), 0.0, -0.0, 1.5, -2.5, math.inf, math.nan, 1e300, 1j, complex(math.nan, 1),
    complex(math.inf, -0.0),
]  # fmt: skip
SHAPES = [(), (1,), (0,), (3,), (2, 3), (0, 3), (3, 0), (2, 1, 3), (2, 0, 2), (2, 1, 2, 1, 2, 1)]


def values(dtype: str) -> Array:
    """Give the values of a dtype where mistakes are made."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return np.asarray([False, True])
    if kind in "iu":
        info = np.iinfo(dtype)
        signed = [-1, -2, -7] if kind == "i" else []
        edges = [info.min, info.min + 1, info.max // 2, info.max - 1, info.max]
        return np.asarray(sorted({*edges, 0, 1, 2, 3, 7, *signed}), dtype)
    if kind == "f":
        return np.asarray(quiet(np.asarray(REAL_VALUES).astype, dtype))
    pairs = list(itertools.product(PARTS, PARTS))
    return np.asarray(quiet(np.asarray([complex(a, b) for a, b in pairs]).astype, dtype))


def spread(dtype: str, shape: tuple[int, ...], small: bool = False) -> Array:
    """Fill a shape with the values of a dtype, or with its small ones."""
    row = values(dtype)
    if small:
        row = row[np.isfinite(row)]
        row = row[np.abs(row.astype(complex)) < 100] if row.dtype.kind != "b" else row
    return np.resize(row, shape).astype(dtype)


def same_bits(found: Any, wanted: Any) -> bool:
    """Tell whether two arrays have one dtype, shape, values and signs of zero; any NaN is one."""
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return False
    if wanted.dtype.kind == "c":
        return same_bits(found.real, wanted.real) and same_bits(found.imag, wanted.imag)
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(found, wanted))
    sure = ~np.isnan(wanted)
    signs = np.array_equal(np.signbit(found[sure]), np.signbit(wanted[sure]))
    return signs and bool(np.array_equal(found, wanted, equal_nan=True))


def alike(found: Any, wanted: Any, close: bool = False) -> bool:
    """Tell whether a tensor, or tensors in a sequence, are what NumPy gives."""
    if isinstance(wanted, (tuple, list)):
        return len(found) == len(wanted) and all(map(alike, found, wanted))
    if type(found) is not xp.Tensor:
        return bool(found == wanted)
    array, wanted = found.numpy(), np.asarray(wanted)
    if not close:
        return same_bits(array, wanted)
    near = 1e-4 if wanted.dtype.name in {"float32", "complex64"} else 1e-9
    same = (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
    return same and quiet(np.allclose, array, wanted, rtol=near, atol=near, equal_nan=True)


#: What a call may raise that is the user's mistake.
REFUSALS = (TypeError, ValueError, IndexError, OverflowError, ZeroDivisionError)


def outcome(fn: Callable[..., Any], args: Any, kwargs: Any) -> tuple[bool, Any]:
    """Give whether a call gave a result, and the result or the error."""
    try:
        return True, quiet(fn, *args, **kwargs)
    except REFUSALS as error:
        return False, error


def differs(
    ours: Callable[..., Any], theirs: Callable[..., Any], *args: Any, close: bool = False, **kw: Any
) -> str:
    """Say how the two differ on arguments: in the result, or in who refuses; "" if not at all."""
    copied = [np.copy(a) if isinstance(a, np.ndarray) else a for a in args]
    worked, wanted = outcome(theirs, copied, kw)
    ran, found = outcome(ours, [into(a) for a in args], {k: into(v) for k, v in kw.items()})
    case = ", ".join(map(_shown, args)) + (f", {kw}" if kw else "")
    if worked is not ran:
        return f"({case}): NumPy {wanted!r:.90}, ours {found!r:.90}"
    if worked and not alike(found, wanted, close):
        return f"({case}): NumPy {wanted!r:.200}, ours {found!r:.200}"
    return ""


def _shown(arg: Any) -> str:
    return f"{arg.dtype}{arg.shape}" if isinstance(arg, np.ndarray) else repr(arg)


def none(found: Iterator[str]) -> None:
    """No comparison found a difference; the first few are shown."""
    differences = [text for text in found if text]
    assert not differences, f"{len(differences)} differ:\n" + "\n".join(differences[:5])
