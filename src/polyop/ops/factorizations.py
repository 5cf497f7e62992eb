"""Factors of matrices: singular values, eigenvalues, QR; each with the gradient of its factors.

Matrices are the last two axes; integers are computed with as float64.

NOTE [Factors have a choice]
Singular vectors and eigenvectors of complex matrices may be turned by any phase.
A gradient exists only of what does not depend on that choice, and on bare
arrays that is checked. Where singular values or eigenvalues meet, vectors have
no gradient: it comes out infinite or NaN, zeros divided by zero included, for a
zero sent back may stand for a slope that is none. Only what was sent counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyop.devices import DType
from polyop.errors import ArgumentError, AutogradError
from polyop.ops.axes import batch_first, call
from polyop.ops.complex_parts import part_of
from polyop.ops.define import define
from polyop.ops.formulas import Built, adjoint, apart, column, formula, off_diagonal, rows, scaled
from polyop.ops.linalg import float_of, require_square
from polyop.ops.signatures import announce
from polyop.symbolic import sym_min
from polyop.tensor.meta import Meta, Shape, Size

Fn = Callable[..., Any]
Array = Any
_numpy: Any = np.linalg  # its stubs want literal words


class SVDResult(NamedTuple):
    """The factors of a singular value decomposition."""

    U: Any
    S: Any
    Vh: Any


class EighResult(NamedTuple):
    """Eigenvalues, from the least, and the eigenvectors, which are columns."""

    eigenvalues: Any
    eigenvectors: Any


class QRResult(NamedTuple):
    """Orthonormal columns, and an upper triangular matrix."""

    Q: Any
    R: Any


# -- what these operators share ---------------------------------------------------


def require_matrix(name: str, shape: Shape, dtype: DType) -> None:
    """Refuse what is no matrix, or has elements that are not computed with.

    Raises:
        ArgumentError: it has less than two axes, or elements of half precision.
    """
    if len(shape) < 2 or dtype.name not in _COMPUTED:
        raise ArgumentError(
            f"core::{name} takes matrices of single or double precision",
            op=f"core::{name}",
            seen=f"{dtype.name}{list(shape)}",
            fix="convert it with .astype(polyop.float32)" if len(shape) > 1 else "add axes",
        )


_COMPUTED = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float32", "float64", "complex64", "complex128"),
}


def real_of(dtype: DType) -> DType:
    """Give the dtype of sizes of numbers."""
    return part_of(float_of(dtype))


def on_matrices(name: str, compute: Fn) -> Fn:
    """Give the kernel of a function of matrices, with results in C order and errors of ours."""

    def kernel(x: Array, *more: Any, **options: Any) -> Any:
        require_matrix(name, x.shape, x.dtype)
        try:
            found = compute(x.astype(float_of(x.dtype), copy=False), *more, **options)
        except np.linalg.LinAlgError as error:
            raise ArgumentError(
                f"core::{name} cannot compute this: {error}",
                op=f"core::{name}",
                seen=f"{x.dtype.name}{list(x.shape)}",
                fix="look for NaN and infinities",
            ) from None
        return tuple(map(_in_order, found)) if isinstance(found, tuple) else _in_order(found)

    return kernel


def _in_order(x: Array) -> Array:
    return np.asarray(x, order="C")


def stacks(name: str, results: int = 1) -> Fn:
    """Give the batching rule of a function that takes stacks of matrices anyway."""

    def batched(info: Any, in_dims: Sequence[Any], x: Any, *rest: Any) -> Any:
        x = batch_first(x, in_dims[0])
        if len(x.shape) < 3:  # the batch is no row
            require_matrix(name, tuple(x.shape[1:]), x.dtype)
        out = call(name, x, *rest)
        return out, 0 if results == 1 else (0,) * results

    return batched


def _hermitian(x: Array) -> Array:
    # Both triangles are read, so that the gradient is that of any argument.
    return (x + x.conj().swapaxes(-1, -2)) * x.dtype.type(0.5)


def fixed_phase(of: Built, x: Any, name: str) -> None:
    """Refuse a gradient of what depends on the phase of vectors; see NOTE [Factors have a choice].

    Raises:
        AutogradError: it does. Only bare arrays are looked at.
    """
    if not isinstance(x, np.ndarray) or x.dtype.kind != "c":
        return
    turns = np.abs(np.diagonal(x, 0, -2, -1).imag)
    bound = 1e3 * np.finfo(x.dtype).eps * max(1.0, float(np.abs(x).max(initial=0)))
    if (turns > bound).any():
        raise AutogradError(
            f"the gradient of core::{name} is that of a function of the vectors' phases",
            op=f"core::{name}",
            seen=f"{turns.max():.3g} along a phase, where 0 is wanted",
            fix="compute with what no phase changes, such as abs(U) or U @ Vh",
        )


# -- singular values ---------------------------------------------------------------


def _svd_fake(x: Meta, full_matrices: bool) -> tuple[Meta, Meta, Meta]:
    require_matrix("svd", x.shape, x.dtype)
    *batch, m, n = x.shape
    k: Size = sym_min(m, n)
    left, right = (m, n) if full_matrices else (k, k)
    whole, real = float_of(x.dtype), real_of(x.dtype)
    return (
        x.but(shape=(*batch, m, left), dtype=whole, strides=None),
        x.but(shape=(*batch, k), dtype=real, strides=None),
        x.but(shape=(*batch, right, n), dtype=whole, strides=None),
    )


def _svd(x: Array, full_matrices: bool = True) -> Any:
    return tuple(np.linalg.svd(x, full_matrices=full_matrices))


def _svdvals(x: Array) -> Array:
    return np.linalg.svd(x, compute_uv=False)


@formula
def svd_grad(of: Built, sent: Any, factors: Any, full: bool) -> Any:
    """Give the gradient of the thin factors; what was not sent is None."""
    (gu, gs, gvh), (u, s, vh) = sent, factors
    if full and u.shape[-1] != vh.shape[-1]:
        raise AutogradError(
            "core::svd with full_matrices has vectors that the matrix does not determine",
            op="core::svd",
            fix="pass full_matrices=False, or call svdvals",
        )
    uh, v = adjoint(of, u), adjoint(of, vh)
    uu = 0 if gu is None else uh @ gu
    vv = 0 if gvh is None else vh @ adjoint(of, gvh)
    fixed_phase(of, uu + vv, "svd")
    found = 0 if gs is None else scaled(of, u, gs, vh)
    if gu is not None:
        found = found + _vectors_grad(of, gu, uu, (u, s, vh))
    if gvh is not None:  # they are the left ones of the adjoint
        right = _vectors_grad(of, adjoint(of, gvh), vv, (v, s, uh))
        found = found + adjoint(of, right)
    return found


def _vectors_grad(of: Built, gu: Any, uu: Any, factors: Any) -> Any:
    """Give the gradient of the left vectors."""
    u, s, vh = factors
    gaps = (rows(of, s) - column(of, s)) * (rows(of, s) + column(of, s))
    turn = apart(of, uu - adjoint(of, uu), gaps)
    found = u @ (turn * rows(of, s)) @ vh
    if uu.dtype.kind == "c":  # turning both sides by one phase: each has half of what that adds
        found = found + scaled(of, u, of.imag(of.diagonal(uu, 0, -2, -1)) / s * 0.5j, vh)
    if u.shape[-2] != u.shape[-1]:
        found = found + ((gu - u @ uu) / rows(of, s)) @ vh
    return found


@formula
def svdvals_grad(of: Built, g: Any, x: Any) -> Any:
    """Give the gradient of the singular values."""
    u, _, vh = of.svd(x, full_matrices=False)
    return scaled(of, u, g, vh)


_svd_entry = define(
    "svd(Tensor x, *, bool full_matrices=True) -> (Tensor U, Tensor S, Tensor Vh)",
    on_matrices("svd", _svd),
    fake=_svd_fake,
    grad={"x": "svd_grad(g, (r0, r1, r2), full_matrices)"},
    vmap=stacks("svd", 3),
)
svdvals = define(
    "svdvals(Tensor x) -> Tensor",
    on_matrices("svdvals", _svdvals),
    fake=lambda x: _svd_fake(x, True)[1],
    grad={"x": "svdvals_grad(g, x)"},
    vmap=stacks("svdvals"),
)


def svd(x: Any, /, *, full_matrices: bool = True) -> SVDResult:
    """Give `U`, `S`, `Vh` with `x == U @ diag(S) @ Vh`, the greatest singular value first.

    Args:
        x: matrices `(..., M, N)`.
        full_matrices: whether `U` and `Vh` are square; gradients of matrices
            that are not square need False.

    Raises:
        ArgumentError: it is no matrix of single or double precision.
    """
    return SVDResult(*_svd_entry(x, full_matrices=full_matrices))


# -- eigenvalues ------------------------------------------------------------------


def _eigh_fake(x: Meta) -> tuple[Meta, Meta]:
    require_square("eigh", x.shape)
    require_matrix("eigh", x.shape, x.dtype)
    return (
        x.but(shape=x.shape[:-1], dtype=real_of(x.dtype), strides=None),
        x.but(dtype=float_of(x.dtype), strides=None),
    )


def _eigh(x: Array) -> Any:
    require_square("eigh", x.shape)
    return tuple(np.linalg.eigh(_hermitian(x)))


def _eigvalsh(x: Array) -> Array:
    require_square("eigvalsh", x.shape)
    return np.linalg.eigvalsh(_hermitian(x))


@formula
def eigh_grad(of: Built, sent: Any, w: Any, v: Any) -> Any:
    """Give the gradient of eigenvalues and eigenvectors; what was not sent is None."""
    gw, gv = sent
    vh = adjoint(of, v)
    found = 0 if gw is None else scaled(of, v, gw, vh)
    if gv is not None:
        vv = vh @ gv
        fixed_phase(of, vv, "eigh")
        found = found + v @ apart(of, vv, rows(of, w) - column(of, w)) @ vh
    return of.hermitian_part(found)


@formula
def eigvalsh_grad(of: Built, g: Any, x: Any) -> Any:
    """Give the gradient of the eigenvalues."""
    v = of.eigh(x)[1]
    return scaled(of, v, g, adjoint(of, v))


_eigh_entry = define(
    "eigh(Tensor x) -> (Tensor eigenvalues, Tensor eigenvectors)",
    on_matrices("eigh", _eigh),
    fake=_eigh_fake,
    grad={"x": "eigh_grad(g, r0, r1)"},
    vmap=stacks("eigh", 2),
)
eigvalsh = define(
    "eigvalsh(Tensor x) -> Tensor",
    on_matrices("eigvalsh", _eigvalsh),
    fake=lambda x: _eigh_fake(x)[0],
    grad={"x": "eigvalsh_grad(g, x)"},
    vmap=stacks("eigvalsh"),
)


def eigh(x: Any, /) -> EighResult:
    """Give the eigenvalues and eigenvectors of Hermitian matrices.

    Of others the Hermitian part is taken, so that gradients are right in every direction.

    Raises:
        ArgumentError: it is no square matrix of single or double precision.
    """
    return EighResult(*_eigh_entry(x))


# -- QR ---------------------------------------------------------------------------


def _qr_fake(x: Meta, mode: str) -> tuple[Meta, Meta]:
    require_matrix("qr", x.shape, x.dtype)
    _require_mode(mode)
    *batch, m, n = x.shape
    k: Size = m if mode == "complete" else sym_min(m, n)
    whole = x.but(dtype=float_of(x.dtype), strides=None)
    return whole.but(shape=(*batch, m, k)), whole.but(shape=(*batch, k, n))


def _require_mode(mode: str) -> None:
    if mode not in {"reduced", "complete"}:
        raise ArgumentError(
            "qr is reduced or complete",
            op="core::qr",
            argument="mode",
            declared='"reduced" or "complete"',
            seen=mode,
        )


def _qr(x: Array, mode: str = "reduced") -> Any:
    _require_mode(mode)
    return tuple(_numpy.qr(x, mode))


@formula
def qr_grad(of: Built, grads: Any, factors: Any, mode: str) -> Any:
    """Give the gradient of both factors."""
    (gq, gr), (q, r) = grads, factors
    m, n = q.shape[-2], r.shape[-1]
    if mode == "complete" and m > n:
        raise AutogradError(
            "a complete qr has columns that the matrix does not determine",
            op="core::qr",
            fix='pass mode="reduced"',
        )
    if m >= n:
        return _tall_qr_grad(of, gq, gr, q, r)
    # The columns past the square are `q` times those of `r`.
    gq = gq + q @ (r[..., m:] @ adjoint(of, gr[..., m:]))
    square = _tall_qr_grad(of, gq, gr[..., :m], q, r[..., :m])
    return of.concat([square, q @ gr[..., m:]], -1)


def _tall_qr_grad(of: Built, gq: Any, gr: Any, q: Any, r: Any) -> Any:
    both = r @ adjoint(of, gr) - adjoint(of, gq) @ q
    lower = of.tril(both, -1)
    diagonal = of.real(both - off_diagonal(of, both))
    inner = gq + q @ (lower + adjoint(of, lower) + diagonal)
    return adjoint(of, of.solve_matrix(r, adjoint(of, inner)))


_qr_entry = define(
    'qr(Tensor x, *, str mode="reduced") -> (Tensor Q, Tensor R)',
    on_matrices("qr", _qr),
    fake=_qr_fake,
    grad={"x": "qr_grad((g0, g1), (r0, r1), mode)"},
    vmap=stacks("qr", 2),
)


def qr(x: Any, /, *, mode: str = "reduced") -> QRResult:
    """Give `Q` with orthonormal columns and the upper triangular `R` with `Q @ R == x`.

    Args:
        x: matrices `(..., M, N)`.
        mode: "reduced", where `Q` has `min(M, N)` columns, or "complete", where it has `M`.

    Raises:
        ArgumentError: another mode, or no matrix of single or double precision.
    """
    return QRResult(*_qr_entry(x, mode=mode))


__all__ = [
    "EighResult", "QRResult", "SVDResult", "eigh", "eigvalsh", "on_matrices", "qr", "real_of",
    "require_matrix", "stacks", "svd", "svdvals",
]  # fmt: skip
announce(globals())
