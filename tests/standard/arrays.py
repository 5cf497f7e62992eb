"""What the standard's examination draws, and how it compares with NumPy."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import polyop as xp

Array = np.ndarray[Any, Any]
BOOL = ["bool"]
SIGNED = ["int8", "int16", "int32", "int64"]
UNSIGNED = ["uint8", "uint16", "uint32", "uint64"]
INTEGERS = [*SIGNED, *UNSIGNED]
FLOATS = ["float32", "float64"]
COMPLEX = ["complex64", "complex128"]
REAL = [*INTEGERS, *FLOATS]
FLOATING = [*FLOATS, *COMPLEX]
NUMERIC = [*REAL, *COMPLEX]
ALL = [*BOOL, *NUMERIC]

#: One profile for all of them: few examples of many functions.
examined = settings(max_examples=25, deadline=None, print_blob=True)

SHAPES = st.sampled_from(
    [(), (1,), (5,), (0,), (2, 3), (0, 3), (3, 0), (1, 1), (2, 3, 4), (2, 0, 3), (1, 3, 1)]
)
SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 0.5, -2.5, 1.5, 1e30, -100.0]


def elements(dtype: str, special: bool = True) -> Any:
    """Give a strategy of numbers of a dtype; `special` ones are infinite, or no number."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return st.booleans()
    if kind in "iu":
        info = np.iinfo(dtype)
        small = st.integers(max(info.min, -5), 5)
        return st.one_of(small, st.sampled_from([info.min, info.max])) if special else small
    plain = st.integers(-12, 12).map(lambda n: n / 4)
    real = st.one_of(plain, st.sampled_from(SPECIAL)) if special else plain
    return st.builds(complex, real, real) if kind == "c" else real


def arrays(dtype: str, shape: Any = SHAPES, special: bool = True) -> Any:
    """Give a strategy of arrays of a dtype."""
    return hnp.arrays(np.dtype(dtype), shape, elements=elements(dtype, special), fill=st.nothing())


def number_beside(dtype: str) -> Any:
    """Give a strategy of the Python numbers that may stand beside an array of a dtype."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return st.booleans()
    whole = st.integers(0, 5)
    return whole if kind in "iu" else st.one_of(whole, elements(dtype))


def promoted(one: str, other: str) -> str | None:
    """Give the dtype of the standard's promotion table, or None where it has none."""
    kinds = {np.dtype(d).kind for d in (one, other)}
    if kinds == {"i", "u"} and "uint64" in {one, other}:
        return None
    if len(kinds) == 1 or kinds <= {"i", "u"} or kinds <= {"f", "c"}:
        return str(np.promote_types(one, other))
    return None


def pairs_of(dtypes: list[str]) -> Any:
    """Give a strategy of two dtypes that promote."""
    return st.sampled_from([(a, b) for a in dtypes for b in dtypes if promoted(a, b) is not None])


def into(value: Any) -> Any:
    """Give arrays as tensors, and dtypes as ours."""
    if isinstance(value, np.ndarray):
        return xp.asarray(value.copy())
    if isinstance(value, (list, tuple)) and any(isinstance(v, np.ndarray) for v in value):
        return type(value)(map(into, value))
    return value


def quiet(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call without NumPy's words on overflow and division by zero."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return fn(*args, **kwargs)


def same(found: Any, wanted: Any, loose: bool = False) -> None:
    """A result is a tensor of NumPy's dtype, shape and elements; zeros have NumPy's sign."""
    assert type(found) is xp.Tensor
    array, wanted = found.numpy(), np.asarray(wanted)
    assert (array.dtype, found.shape) == (wanted.dtype, wanted.shape)
    narrow = wanted.dtype.name in {"float32", "complex64"}
    if not loose:
        np.testing.assert_array_equal(array, wanted)
        if wanted.dtype.kind == "f":
            sure = ~np.isnan(wanted)
            np.testing.assert_array_equal(np.signbit(array[sure]), np.signbit(wanted[sure]))
        return
    tolerance = 1e-3 if narrow else 1e-8
    np.testing.assert_allclose(array, wanted, rtol=tolerance, atol=tolerance)


def agree(
    name: str, *args: Any, as_dtype: Any = None, loose: bool = False, of: str = "", **kwargs: Any
) -> None:
    """Ours and NumPy's function of a name give the same; `of` names an extension."""
    theirs = getattr(getattr(np, of) if of else np, name)
    ours = getattr(getattr(xp, of) if of else xp, name)
    wanted = quiet(theirs, *args, **kwargs)
    named = {k: into(v) for k, v in kwargs.items()}
    found = quiet(ours, *map(into, args), **named)
    if hasattr(wanted, "_fields"):
        assert type(found)._fields == type(wanted)._fields
    if isinstance(wanted, (list, tuple)):
        assert isinstance(found, (list, tuple))
        for f, w in zip(found, wanted, strict=True):
            same(f, w, loose)
        return
    wanted = np.asarray(wanted)
    same(found, wanted if as_dtype is None else wanted.astype(as_dtype), loose)


def summed_dtype(dtype: str) -> str:
    """Give the dtype of a sum: small integers become the default ones."""
    return {"i": "int64", "u": "uint64"}.get(np.dtype(dtype).kind, dtype)


def axes_of(ndim: int, several: bool) -> Any:
    """Give a strategy of axes: None, one, or several in a tuple."""
    one = [None, *range(-ndim, ndim)]
    many: list[Any] = [(), tuple(range(ndim))] if several else []
    if several and ndim > 1:
        many += [(0, 1), (-1, 0)]
    return st.sampled_from([*one, *many])
