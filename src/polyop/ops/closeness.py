"""Whether tensors are equal, or nearly so."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.ops.comparison import equal, isfinite, isnan, less_equal
from polyop.ops.elementwise import abs as absolute
from polyop.tensor.tensor import Tensor


def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Tell for each element whether `|a - b| <= atol + rtol * |b|`."""
    if _are_bools(a, b):
        return equal(a, b)
    near = less_equal(absolute(a - b), absolute(b) * rtol + atol) & isfinite(b) | equal(a, b)
    return near | (isnan(a) & isnan(b)) if equal_nan else near


def _are_bools(*given: Any) -> bool:
    return all(getattr(x, "dtype", type(x)) in (np.bool_, bool) for x in given)


def allclose(
    a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Tell whether all elements are close."""
    x, y = _array(a), _array(b)
    return bool(np.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan))


def array_equal(a: Any, b: Any) -> bool:
    """Tell whether two tensors have the same shape and the same elements."""
    return bool(np.array_equal(_array(a), _array(b)))


def _array(x: Any) -> Any:
    return x.numpy(force=True) if isinstance(x, Tensor) else np.asarray(x)
