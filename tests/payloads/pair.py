"""One call over NumPy and over another library, and what differs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from polyop import tree
from polyop.dispatch.bind import dispatch
from polyop.errors import ArgumentError, PolyopError
from polyop.payloads import from_array, from_numpy, to_numpy
from polyop.payloads.held import Held
from polyop.tensor.tensor import Tensor, of_array

RTOL = {"float16": 2e-2, "bfloat16": 5e-2, "float32": 3e-4, "complex64": 3e-4}
#: Factors that are unique but for signs.
GAUGE = {"core::eigh", "core::svd", "core::qr"}


def outcome(sample: Any, wrap: Any) -> Any:
    """Run a call; give its results as NumPy arrays, or the class of its error."""
    args = [_mapped(a, wrap) for a in sample.args]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            out = dispatch(sample.op, args)
            leaves = tree.leaves(out)
            for x in leaves:
                if isinstance(x.payload, Held):
                    to_numpy(x.payload.array)  # recipes raise when they are computed
            return [x.payload for x in leaves]
        except (
            PolyopError,
            ArithmeticError,
            ValueError,
            TypeError,
            IndexError,
            np.linalg.LinAlgError,
        ) as error:
            return error


def _mapped(value: Any, wrap: Any) -> Any:
    if isinstance(value, np.ndarray):
        return wrap(value)
    return [_mapped(v, wrap) for v in value] if isinstance(value, list) else value


def numpy_outcome(sample: Any) -> Any:
    return outcome(sample, lambda x: of_array(x.copy()))


def held_outcome(sample: Any, library: Any) -> Any:
    return outcome(sample, lambda x: from_array(from_numpy(library, x)))


def difference(sample: Any, library: Any) -> str:
    """Say how a call differs from NumPy's; nothing if it does not."""
    for leaf in tree.leaves(list(sample.args)):
        if isinstance(leaf, np.ndarray) and not _has(library, leaf.dtype):
            return ""
    wanted, found = numpy_outcome(sample), held_outcome(sample, library)
    if isinstance(wanted, Exception) or isinstance(found, Exception):
        if isinstance(wanted, Exception) and isinstance(found, Exception):
            return ""
        if isinstance(found, ArgumentError) and not all(_has(library, w.dtype) for w in wanted):
            return ""  # NumPy's result has a dtype that the library has not, and the error says so
        return f"NumPy: {_said(wanted)}; {library.name}: {_said(found)}"
    for w, f in zip(wanted, found, strict=True):
        text = _differs(sample, w, f, library)
        if text:
            return text
    return ""


def _said(value: Any) -> str:
    return repr(value)[:300]


def _has(library: Any, dtype: Any) -> bool:
    try:
        return library.canonical(dtype) == dtype and library.native(dtype) is not None
    except PolyopError:
        return False


def _differs(sample: Any, wanted: Any, found: Any, library: Any) -> str:
    if not isinstance(found, Held):
        return f"no array of {library.name}: {found!r}"
    if found.library is not library:
        return f"of another library: {found!r}"
    if found.dtype != library.canonical(wanted.dtype) or found.shape != wanted.shape:
        return f"NumPy: {wanted.dtype}{wanted.shape}; {found!r}"
    if sample.by == "facts":
        return ""
    values = to_numpy(found.array)
    if values.dtype != found.dtype or values.shape != found.shape:
        return f"said to be {found!r}, is {values.dtype}{values.shape}"
    a, b = wanted.astype(values.dtype), values
    if sample.op.name() in GAUGE:
        a, b = np.abs(a), np.abs(b)
    tol = RTOL.get(values.dtype.name, 1e-7)
    with np.errstate(all="ignore"):
        same = np.isclose(
            a.astype(_wide(a)), b.astype(_wide(b)), rtol=tol, atol=tol, equal_nan=True
        )
    return "" if same.all() else f"NumPy:\n{wanted}\n{library.name}:\n{values}"


def _wide(x: Any) -> Any:
    return (
        x.dtype if x.dtype.kind in "biu" else np.complex128 if x.dtype.kind == "c" else np.float64
    )


def tensor_of(library: Any, array: Any) -> Tensor:
    """Give a tensor over a library's array."""
    return from_array(from_numpy(library, np.asarray(array)))
