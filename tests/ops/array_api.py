"""Calls of the Array API's functions: made for any dtype, run here and in array-api-strict."""

from __future__ import annotations

import warnings
from typing import Any

import array_api_strict as strict
import numpy as np

import polyop

DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float32", "float64", "complex64", "complex128"),
]
SHAPES = [(3, 4), (5,), (2, 0), (1, 3, 1)]


def noise(dtype: str, shape: tuple[int, ...] = (3, 4), seed: int = 0) -> np.ndarray[Any, Any]:
    """Make elements of a dtype: small integers, or a normal distribution."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    if kind in "iu":
        return np.asarray(rng.integers(-9 if kind == "i" else 1, 9, shape)).astype(dtype)
    x = rng.normal(size=shape)
    x = x + 1j * rng.normal(size=shape) if kind == "c" else x
    return np.asarray(x > 0 if kind == "b" else x).astype(dtype)


def definite(dtype: str, shape: tuple[int, ...] = (2, 3, 3)) -> np.ndarray[Any, Any]:
    """Make positive definite matrices."""
    x = noise(dtype, shape)
    return x @ x.conj().swapaxes(-1, -2) + np.eye(shape[-1], dtype=dtype)


def into(value: Any, space: Any) -> Any:
    """Give an array, a dtype, or a list of arrays as one of `polyop` or of `array_api_strict`."""
    if isinstance(value, np.ndarray):
        return strict.asarray(value) if space is strict else polyop.from_numpy(value.copy())
    if isinstance(value, np.dtype):
        return getattr(space, value.name)
    if isinstance(value, list):
        return [into(v, space) for v in value]
    return value


def out_of(found: Any) -> list[Any]:
    """Give the arrays of a result, or the one value."""
    if isinstance(found, tuple | list) and not hasattr(found, "bits"):
        return [y for x in found for y in out_of(x)]
    if isinstance(found, polyop.Tensor):
        return [found.numpy()]
    return [getattr(found, "_array", found)]


def call(space: Any, name: str, args: Any, kwargs: Any) -> list[Any]:
    """Call a function, or the one of an extension, by name."""
    fn = space
    for part in name.split("."):
        fn = getattr(fn, part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # means of nothing, overflows
        given = {k: into(v, space) for k, v in kwargs.items()}
        return out_of(fn(*[into(v, space) for v in args], **given))


def agree(name: str, *args: Any, **kwargs: Any) -> bool:
    """Compare with the oracle; gives False where the oracle refuses, which is no law for us."""
    try:
        wanted = call(strict, name, args, kwargs)
    except (TypeError, ValueError, RuntimeError, IndexError, OverflowError):
        return False
    found = call(polyop, name, args, kwargs)
    assert len(found) == len(wanted), name
    for w, f in zip(wanted, found, strict=True):
        same(name, w, f)
    return True


def same(name: str, w: Any, f: Any) -> None:
    """One result: shape, dtype and elements, or a plain value."""
    if not isinstance(w, np.ndarray):
        w = getattr(w, "_np_dtype", w)
        assert w == f, (name, w, f)
        return
    assert (f.shape, f.dtype) == (w.shape, w.dtype), name
    if "empty" in name:
        return
    narrow = w.dtype.name in {"float32", "complex64"}
    np.testing.assert_allclose(f, w, rtol=2e-4 if narrow else 1e-9, atol=1e-4 if narrow else 1e-9)


UNARY = """abs acos acosh asin asinh atan atanh bitwise_invert ceil conj cos cosh exp expm1 floor
imag isfinite isinf isnan log log1p log2 log10 logical_not negative positive real reciprocal round
sign signbit sin sinh square sqrt tan tanh trunc sum prod mean std var max min any all argmax argmin
count_nonzero unique_values unique_all unique_counts unique_inverse nonzero flip matrix_transpose
zeros_like ones_like empty_like tril triu unstack diff fft.fftshift fft.ifftshift fft.fft fft.ifft
fft.rfft fft.irfft fft.hfft fft.ihfft fft.fftn fft.ifftn fft.rfftn fft.irfftn linalg.vector_norm
linalg.matrix_norm linalg.svdvals linalg.trace linalg.diagonal linalg.matrix_rank linalg.pinv
linalg.matrix_transpose linalg.svd linalg.qr""".split()
BINARY = """add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor
copysign divide equal floor_divide greater greater_equal hypot less less_equal logaddexp
logical_and logical_or logical_xor maximum minimum multiply nextafter not_equal pow
remainder subtract""".split()


def calls(d: str) -> list[tuple[Any, ...]]:
    """Calls with the arguments that each function has beside its tensors: name, args, kwargs."""
    x, v, f64 = noise(d), noise(d, (5,), 1), np.dtype("float64")
    square, plus = noise(d, (2, 3, 3)), definite(d) if d != "bool" else noise(d, (2, 3, 3))
    rows, columns = noise(d, (1, 4), 2), noise(d, (3, 1), 3)
    along = "sum prod mean std var max min any all count_nonzero".split()
    running = ("cumulative_sum", "cumulative_prod")
    kinds = ["bool", "signed integer", "unsigned integer", "integral", "real floating",
             "complex floating", "numeric", ("bool", "integral")]  # fmt: skip
    return [
        *[(n, (x,), {"axis": a, "keepdims": k}) for n in along
          for a in (0, -1, (0, 1)) for k in (False, True)],
        *[(n, (x,), {"axis": a, "keepdims": True}) for n in ("argmax", "argmin") for a in (0, -1)],
        *[(n, (x,), {"axis": 0, "correction": 1}) for n in ("std", "var")],
        *[(n, (x,), {"axis": 0, "dtype": f64}) for n in ("sum", "prod", *running)],
        *[(n, (v,), {"include_initial": True}) for n in running],
        *[(n, (x,), {"axis": a, "descending": s, "stable": s}) for n in ("sort", "argsort")
          for a in (0, -1) for s in (False, True)],
        ("expand_dims", (x,), {"axis": -1}), ("expand_dims", (x,), {"axis": 0}),
        ("squeeze", (noise(d, (1, 3, 1)), (0, 2)), {}), ("squeeze", (rows, 0), {}),
        *[("reshape", (x, (2, -1)), {"copy": c}) for c in (None, True, False)],
        ("permute_dims", (x, (1, 0)), {}), ("moveaxis", (x, 0, 1), {}),
        ("moveaxis", (x, (0, 1), (1, 0)), {}), ("roll", (x, 1), {}),
        ("roll", (x, (1, -2)), {"axis": (0, 1)}), ("repeat", (x, 2), {}),
        ("repeat", (x, 2), {"axis": 0}), ("repeat", (x, np.array([1, 0, 2])), {"axis": 0}),
        ("tile", (x, (2, 1, 2)), {}), ("tile", (x, (2,)), {}), ("flip", (x,), {"axis": (0, 1)}),
        ("take", (x, np.array([0, 2])), {"axis": 0}), ("take", (v, np.array([0, 2])), {}),
        ("take_along_axis", (x, np.array([[0], [1], [2]])), {"axis": 1}),
        ("take_along_axis", (x, np.array([[0, 1, 2, 0]])), {"axis": 0}),
        ("broadcast_to", (x, (2, 3, 4)), {}), ("broadcast_arrays", (x, rows, columns), {}),
        *[("meshgrid", (v, noise(d, (3,))), {"indexing": i}) for i in ("xy", "ij")],
        ("unstack", (x,), {"axis": 1}), ("tril", (x,), {"k": 1}), ("triu", (x,), {"k": -1}),
        *[("concat", ([x, x],), {"axis": a}) for a in (None, 0, 1)],
        ("stack", ([x, x],), {"axis": -1}), ("clip", (x, 1, 3), {}), ("clip", (x,), {"min": 1}),
        ("clip", (x,), {"max": 1}), ("clip", (x,), {}), ("clip", (x, columns, rows), {}),
        ("clip", (x, 1, rows), {}), ("clip", (x, columns, 3), {}),
        ("where", (noise("bool"), x, 1), {}), ("where", (noise("bool"), rows, columns), {}),
        ("diff", (x,), {"n": 2}), ("diff", (x,), {"axis": 0, "prepend": rows, "append": rows}),
        ("full_like", (x, 1), {}), ("full_like", (x,), {"fill_value": 1}),
        ("isin", (x, rows), {}), ("isin", (x, 1), {}),
        ("searchsorted", (np.sort(v), x), {"side": "right"}),
        *[("linspace", (0, 5, 4), {"dtype": np.dtype(d), "endpoint": e}) for e in (True, False)],
        ("arange", (3,), {"dtype": np.dtype(d)}), ("arange", (1, 7, 2), {"dtype": np.dtype(d)}),
        ("eye", (3, 4), {"k": 1, "dtype": np.dtype(d)}), ("zeros", (3,), {"dtype": np.dtype(d)}),
        ("ones", ((3, 2),), {"dtype": np.dtype(d)}),
        *[(n, (), {"shape": (2, 3), "dtype": np.dtype(d)}) for n in ("ones", "zeros", "empty")],
        ("full", (), {"shape": (2,), "fill_value": 1, "dtype": np.dtype(d)}),
        ("full", ((2,), 1), {"dtype": np.dtype(d)}),
        *[("isdtype", (np.dtype(d), k), {}) for k in kinds],
        *[(f"linalg.{n}", (square,), {}) for n in ("det", "inv", "slogdet")],
        *[(f"linalg.{n}", (plus,), {}) for n in ("eigh", "eigvalsh", "cholesky")],
        ("linalg.cholesky", (plus,), {"upper": True}),
        *[("linalg.matrix_norm", (noise(d, (2, 3, 4)),), {"ord": o, "keepdims": k})
          for o in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf) for k in (False, True)],
        *[("linalg.vector_norm", (square,), {"ord": o, "axis": a, "keepdims": True})
          for o in (0, 1, 2, 3, -1, -2, 2.5, np.inf, -np.inf) for a in (0, (0, 1), None)],
        *[("linalg.matrix_power", (square, n), {}) for n in (-2, 0, 1, 3)],
        ("linalg.trace", (square,), {"offset": 1, "dtype": f64}),
        ("linalg.diagonal", (square,), {"offset": -1}),
        *[(f"linalg.{n}", (square,), {"rtol": r}) for n in ("pinv", "matrix_rank")
          for r in (0.3, np.array([0.3, 0.1], "float32"))],
        ("linalg.svd", (noise(d, (2, 3, 4)),), {"full_matrices": False}),
        ("linalg.qr", (noise(d, (2, 4, 3)),), {"mode": "complete"}),
        *[(f"fft.{n}", (x,), {"n": k, "norm": norm, "axis": 0})
          for n in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft") for k in (None, 3, 6)
          for norm in ("backward", "ortho", "forward")],
        *[(f"fft.{n}", (x,), {"s": (2, 5), "axes": (1, 0)})
          for n in ("fftn", "ifftn", "rfftn", "irfftn")],
        ("fft.fftshift", (x,), {"axes": 0}), ("fft.ifftshift", (x,), {"axes": (1,)}),
    ]  # fmt: skip


def pairs(d: str, e: str) -> list[tuple[Any, ...]]:
    """Calls with tensors of two dtypes."""
    x = noise(d)
    return [
        ("astype", (x, np.dtype(e)), {}), ("astype", (x, np.dtype(e)), {"copy": False}),
        ("result_type", (np.dtype(d), noise(e)), {}), ("isdtype", (np.dtype(d), np.dtype(e)), {}),
        ("where", (noise("bool"), x, noise(e)), {}), ("concat", ([x, noise(e)],), {}),
        ("stack", ([x, noise(e)],), {}), ("matmul", (x, noise(e, (4, 2))), {}),
        ("tensordot", (x, noise(e, (4, 2))), {"axes": 1}), ("vecdot", (x, noise(e, (4,))), {}),
        ("linalg.outer", (noise(d, (2,)), noise(e, (3,))), {}),
        ("linalg.cross", (noise(d, (2, 3)), noise(e, (3,))), {}),
        ("linalg.solve", (definite(d)[0] if d != "bool" else x, noise(e, (3, 2))), {}),
        ("linalg.solve", (definite(d)[0] if d != "bool" else x, noise(e, (3,))), {}),
        ("searchsorted", (np.sort(noise(d, (4,))), noise(e)), {}),
    ]  # fmt: skip
