"""Products, linear algebra and Fourier transforms, beside PyTorch's.

Factors are unique up to a sign or a phase; what is compared of them does not
depend on it, and neither do their derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tests.opinfo.pair import pair
from tests.opinfo.reasons import Reason, skip, unless

import polyop as P

Fn = Callable[..., Any]

# -- products -------------------------------------------------------------------------


def _tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    axes: Any = dims if isinstance(dims, int) else tuple([list(d) for d in dims])
    return P.tensordot(a, b, axes=axes)


def _vecdot(a: Any, b: Any, *, dim: int = -1) -> Any:
    # By the Array API an axis is counted from the last one.
    return P.vecdot(a, b, axis=dim if dim < 0 else dim - max(a.ndim, b.ndim))


for name in ("matmul", "mm", "bmm"):
    pair(name, P.matmul, "matmul", "mm", "bmm")
pair("mv", P.mv)
pair("dot", P.dot)
pair("vdot", P.vecdot, "vecdot")
pair("outer", P.outer)
pair("linalg.vecdot", _vecdot, "vecdot")
pair("tensordot", _tensordot, "tensordot")
pair("einsum", lambda operands, subscripts: P.einsum(subscripts, *operands), "einsum")
pair("linalg.cross", lambda a, b, *, dim=-1: P.linalg.cross(a, b, axis=dim), "linalg.cross")


def _cross(a: Any, b: Any, dim: int | None = None) -> Any:
    return P.linalg.cross(a, b, axis=dim) if dim is not None else skip(Reason.FORM)


pair("cross", _cross, "linalg.cross")


# -- factors --------------------------------------------------------------------------


def _phaseless_ours(*columns: Any) -> Any:
    return tuple([P.abs(x) for x in columns])


def _svd(x: Any, full_matrices: bool = True, **rest: Any) -> Any:
    return tuple(P.linalg.svd(x, full_matrices=full_matrices))


def _old_svd(x: Any, some: bool = True, compute_uv: bool = True) -> Any:
    if not compute_uv:
        skip(Reason.FORM)
    u, s, vh = P.linalg.svd(x, full_matrices=not some)
    return u, s, P.conj(vh.mT)


def _thin(abs: Fn, last: Fn, transposed: bool) -> Fn:
    """Keep what a phase does not change, and the columns that belong to singular values."""

    def after(out: Any) -> Any:
        u, s, v = out
        k = int(s.shape[-1])
        v = last(v) if transposed else v
        return abs(u[..., :k]), s, abs(v[..., :k])

    return after


def _hermitian(fn: Fn) -> Fn:
    """Make the argument Hermitian: samples leave it to the operator which triangle counts."""
    return lambda x, *args, **named: fn(x + x.mT.conj(), *args, **named)


def _eigh(x: Any, UPLO: str = "L") -> Any:
    return tuple(P.linalg.eigh(x))


def _values(abs: Fn) -> Fn:
    return lambda out: (out[0], abs(out[1]))


def _qr(x: Any, mode: str = "reduced") -> Any:
    return tuple(P.linalg.qr(x, mode=mode)) if mode != "r" else skip(Reason.FORM)


def _old_qr(x: Any, some: bool = True) -> Any:
    return _qr(x, "reduced" if some else "complete")


def _phaseless(abs: Fn) -> Fn:
    return lambda out: tuple([abs(x) for x in out])


def _both(make: Fn, *args: Any) -> tuple[Fn, Fn]:
    return make(P.abs, *args), make(torch.abs, *args)


THIN_H = (
    _thin(P.abs, lambda x: x.mT, True),
    _thin(torch.abs, lambda x: x.mT, True),
)
pair("linalg.svd", _svd, "linalg.svd", after=THIN_H)
pair(
    "svd",
    _old_svd,
    "linalg.svd",
    after=(_thin(P.abs, lambda x: x, False), _thin(torch.abs, lambda x: x, False)),
)
pair("linalg.svdvals", lambda x, **_: P.linalg.svdvals(x), "linalg.svdvals")
pair("linalg.eigh", _hermitian(_eigh), "linalg.eigh", theirs=_hermitian(torch.linalg.eigh),
     after=_both(_values))  # fmt: skip
pair("linalg.eigvalsh", _hermitian(lambda x, UPLO="L": P.linalg.eigvalsh(x)), "linalg.eigvalsh",
     theirs=_hermitian(torch.linalg.eigvalsh))  # fmt: skip
pair("linalg.qr", _qr, "linalg.qr", after=_both(_phaseless))
pair("qr", _old_qr, "linalg.qr", after=_both(_phaseless))
pair("linalg.cholesky", _hermitian(P.linalg.cholesky), "linalg.cholesky",
     theirs=_hermitian(torch.linalg.cholesky))  # fmt: skip
pair("cholesky", _hermitian(lambda x, upper=False: P.linalg.cholesky(x, upper=upper)),
     "linalg.cholesky", theirs=_hermitian(torch.cholesky))  # fmt: skip


# -- functions of matrices --------------------------------------------------------------


def _pinv(x: Any, *, rtol: Any = None, atol: Any = None, hermitian: bool = False) -> Any:
    unless(atol, None)
    return P.linalg.pinv(x, rtol=rtol)


def _rank(x: Any, *, rtol: Any = None, atol: Any = None, hermitian: bool = False) -> Any:
    unless(atol, None)
    return P.linalg.matrix_rank(x, rtol=rtol)


def _solve(a: Any, b: Any, *, left: bool = True) -> Any:
    unless(left, True)
    vectors = b.ndim == 1 or (b.ndim == a.ndim - 1 and tuple(b.shape) == tuple(a.shape[:-1]))
    if vectors and b.ndim > 1:
        skip(Reason.FORM)  # a batch of vectors: by the Array API it is one matrix
    return P.linalg.solve(a, b)


pair("linalg.det", P.linalg.det, "linalg.det")
pair("linalg.slogdet", lambda x: tuple(P.linalg.slogdet(x)), "linalg.slogdet")
pair("linalg.inv", P.linalg.inv, "linalg.inv")
pair("linalg.solve", _solve, "linalg.solve", "solve_matrix")
pair("linalg.pinv", _pinv, "linalg.pinv")
pair("linalg.pinv/hermitian", _hermitian(_pinv), "linalg.pinv",
     theirs=_hermitian(torch.linalg.pinv))  # fmt: skip
pair("linalg.pinv/singular", lambda a, b: P.linalg.pinv(a @ b.mT), "linalg.pinv")
pair("pinverse", lambda x, rcond=None: _pinv(x, rtol=rcond), "linalg.pinv")
pair("linalg.matrix_power", P.linalg.matrix_power, "linalg.matrix_power")
pair("linalg.matrix_rank", _rank, "linalg.matrix_rank")
pair("linalg.matrix_rank/hermitian", _hermitian(_rank), "linalg.matrix_rank",
     theirs=_hermitian(torch.linalg.matrix_rank))  # fmt: skip


# -- norms --------------------------------------------------------------------------------


def _vector_norm(
    x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    x = x if dtype is None else x.to(dtype)
    return P.linalg.vector_norm(x, ord=ord, axis=dim, keepdims=keepdim)


def _matrix_norm(
    x: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Any:
    x = x if dtype is None else x.to(dtype)
    # By the Array API matrices are the last two axes.
    found = P.linalg.matrix_norm(P.moveaxis(x, dim, (-2, -1)), ord=ord, keepdims=keepdim)
    return P.moveaxis(found, (-2, -1), dim) if keepdim else found


def _norm(
    x: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """Give the norm of vectors or of matrices, as PyTorch's `linalg.norm` decides."""
    x = x if dtype is None else x.to(dtype)
    if ord is None:
        return _vector_norm(x, 2, dim, keepdim)
    axes = dim if dim is None or isinstance(dim, int) else tuple(dim)
    matrices = isinstance(axes, tuple) and len(axes) == 2 or (axes is None and x.ndim == 2)
    if matrices:
        return _matrix_norm(x, ord, axes or (-2, -1), keepdim)
    return _vector_norm(x, ord, dim, keepdim)


def _old_norm(
    x: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    x = x if dtype is None else x.to(dtype)
    if p == "nuc":
        return _matrix_norm(x, "nuc", dim or (-2, -1), keepdim)
    return _vector_norm(x, 2 if p == "fro" else p, dim, keepdim)


pair("linalg.vector_norm", _vector_norm, "linalg.vector_norm", "norm2")
pair("linalg.matrix_norm", _matrix_norm, "linalg.matrix_norm")
for name in ("linalg.norm", "linalg.norm/subgradients_at_zero"):
    pair(name, _norm, "linalg.vector_norm", "linalg.matrix_norm")
for name in ("norm", "norm/nuc", "norm/fro", "norm/inf"):
    pair(name, _old_norm, "linalg.vector_norm", "linalg.matrix_norm")


# -- Fourier transforms ---------------------------------------------------------------------


def _one(name: str) -> Fn:
    fn = getattr(P.fft, name)
    return lambda x, n=None, dim=-1, norm=None: fn(x, n=n, axis=dim, norm=norm or "backward")


def _many(name: str, axes: Any = None) -> Fn:
    fn = getattr(P.fft, name)
    return lambda x, s=None, dim=axes, norm=None: fn(x, s=s, axes=dim, norm=norm or "backward")


for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft"):
    pair(f"fft.{name}", _one(name), f"fft.{name}")
for name in ("fftn", "ifftn", "rfftn", "irfftn"):
    pair(f"fft.{name}", _many(name), f"fft.{name}")
    pair(f"fft.{name[:-1]}2", _many(name, (-2, -1)), f"fft.{name}")
for name in ("fftshift", "ifftshift"):
    fn = getattr(P.fft, name)
    pair(f"fft.{name}", lambda x, dim=None, fn=fn: fn(x, axes=dim), f"fft.{name}")
