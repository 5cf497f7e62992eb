"""Native kernels of products, matrices and spectra."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from polyop.ops.minors import minors
from polyop.payloads.library import Array
from polyop.payloads.native import NATIVE, Call, Unsupported, native
from polyop.payloads.native_reductions import sum_to

#: By direction and the operator's word, how the namespace says it.
FORWARD = {"none": "backward", "ortho": "ortho", "full": "forward"}
BACK = {"none": "forward", "ortho": "ortho", "full": "backward"}


def nothing(call: Call, x: Array) -> Array:
    """Give a result without elements that gradients flow through.

    Raises:
        Unsupported: it has elements.
    """
    if 0 not in call.shape or call.library.lazy:
        raise Unsupported
    return call.full(call.shape, 0) * call.to(call.xp.sum(x), call.dtype)


# -- products -----------------------------------------------------------------------


@native("matmul")
def matmul(call: Call, a: Array, b: Array) -> Array:
    """Multiply matrices, in the result's dtype."""
    return call.xp.matmul(call.to(a, call.dtype), call.to(b, call.dtype))


def _conj(call: Call, x: Array) -> Array:
    return call.xp.conj(x) if call.dtype_of(x).kind == "c" else x


def _adjoint(call: Call, x: Array) -> Array:
    return call.xp.matrix_transpose(_conj(call, x))


@native("matmul_left")
def matmul_left(call: Call, x: Array, b: Array, shape: Sequence[Any]) -> Array:
    """Give the gradient of a left factor of some shape: `x @ b^H`."""
    xp = call.xp
    x, b = call.to(x, call.dtype), call.to(b, call.dtype)
    if len(b.shape) == 1:
        x, b = xp.expand_dims(x, axis=-1), xp.expand_dims(b, axis=-1)
    if len(shape) == 1:
        x = xp.expand_dims(x, axis=-2)
    product = xp.matmul(x, _adjoint(call, b))
    return sum_to(call, product[..., 0, :] if len(shape) == 1 else product, shape)


@native("matmul_right")
def matmul_right(call: Call, a: Array, x: Array, shape: Sequence[Any]) -> Array:
    """Give the gradient of a right factor of some shape: `a^H @ x`."""
    xp = call.xp
    x, a = call.to(x, call.dtype), call.to(a, call.dtype)
    if len(shape) == 1:
        x = xp.expand_dims(x, axis=-1)
    if len(a.shape) == 1:
        x, a = xp.expand_dims(x, axis=-2), xp.expand_dims(a, axis=0)
    product = xp.matmul(_adjoint(call, a), x)
    return sum_to(call, product[..., 0] if len(shape) == 1 else product, shape)


# -- matrices -------------------------------------------------------------------------


def checked(call: Call, *found: Array) -> None:
    """Leave to NumPy, which raises, what has no finite answer and was not refused."""
    library = call.library
    for x in found:
        if library.clamps and library.is_concrete(x) and not call.xp.all(call.xp.isfinite(x)):
            raise Unsupported


def in_one_piece(call: Call) -> None:
    """Leave recipes to a task: of blocks Dask takes no pivots, and another triangle."""
    if call.library.lazy:
        raise Unsupported


def _of_matrix(name: str, call: Call, x: Array) -> Array:
    in_one_piece(call)
    found = getattr(call.xp.linalg, name)(call.to(x, call.dtype))
    checked(call, found)
    return found


def _several(name: str, call: Call, x: Array, *more: Any, **named: Any) -> tuple[Array, ...]:
    wide = max((w.dtype for w in call.wanted), key=lambda d: (d.kind == "c", d.itemsize))
    found = tuple(getattr(call.xp.linalg, name)(call.to(x, wide), *more, **named))
    checked(call, *found)
    return found


NATIVE.update({f"core::{n}": partial(_of_matrix, n) for n in ("inv", "det")})
NATIVE["core::cholesky_lower"] = partial(_of_matrix, "cholesky")


@native("solve_matrix")
def solve_matrix(call: Call, a: Array, b: Array) -> Array:
    """Solve linear equations with matrices on the right side."""
    in_one_piece(call)
    found = call.xp.linalg.solve(call.to(a, call.dtype), call.to(b, call.dtype))
    checked(call, found)
    return found


@native("cofactors")
def cofactors(call: Call, x: Array, along: Sequence[Array]) -> Array:
    """Give the gradient of the determinant, or of its derivative along matrices."""
    xp = call.xp
    if 0 in x.shape:
        raise Unsupported
    u, s, vh = xp.linalg.svd(call.to(x, call.dtype), full_matrices=False)
    uh, v = _adjoint(call, u), _adjoint(call, vh)
    blocks = [xp.matmul(xp.matmul(uh, call.to(a, call.dtype)), v) for a in along]
    places = call.library.from_numpy(np.arange(int(x.shape[-1])), x)
    inner = minors(xp, s, [_conj(call, b) for b in blocks], places)
    phase = _conj(call, xp.linalg.det(u) * xp.linalg.det(vh))
    found = xp.matmul(xp.matmul(u, call.to(inner, call.dtype)), vh)
    return xp.expand_dims(xp.expand_dims(phase, axis=-1), axis=-1) * found


@native("hermitian_part")
def hermitian_part(call: Call, x: Array) -> Array:
    """Average a matrix with its adjoint."""
    return (x + _adjoint(call, x)) * call.number(0.5, call.dtype)


@native("half_tril")
def half_tril(call: Call, x: Array) -> Array:
    """Keep the lower triangle and half the diagonal."""
    half = call.number(0.5, call.dtype)
    return (call.xp.tril(x) + call.xp.tril(x, k=-1)) * half


@native("eigh")
def eigh(call: Call, x: Array) -> tuple[Array, ...]:
    """Give eigenvalues and eigenvectors of the Hermitian part."""
    x = call.to(x, call.wanted[1].dtype)
    half = call.number(0.5, call.wanted[1].dtype)
    return _several("eigh", call, (x + _adjoint(call, x)) * half)


@native("eigvalsh")
def eigvalsh(call: Call, x: Array) -> Array:
    """Give the eigenvalues of the Hermitian part."""
    if call.dtype_of(x).kind not in "fc":
        x = call.to(x, call.dtype)
    half = call.number(0.5, call.dtype_of(x))
    found = call.xp.linalg.eigvalsh((x + _adjoint(call, x)) * half)
    checked(call, found)
    return found


@native("svd")
def svd(call: Call, x: Array, full_matrices: bool) -> tuple[Array, ...]:
    """Give the factors of a matrix."""
    return _several("svd", call, x, full_matrices=full_matrices)


@native("svdvals")
def svdvals(call: Call, x: Array) -> Array:
    """Give the singular values."""
    if call.dtype_of(x).kind not in "fc":
        x = call.to(x, call.dtype)
    found = call.xp.linalg.svdvals(x)
    checked(call, found)
    return found


@native("qr")
def qr(call: Call, x: Array, mode: str) -> tuple[Array, ...]:
    """Give an orthogonal and a triangular factor."""
    return _several("qr", call, x, mode=mode)


@native("slogdet")
def slogdet(call: Call, x: Array) -> tuple[Array, ...]:
    """Give sign and logarithm of the determinant."""
    wide = call.wanted[0].dtype
    return tuple(call.xp.linalg.slogdet(call.to(x, wide)))


@native("pinv")
def pinv(call: Call, x: Array, rtol: Any) -> Array:
    """Give the inverse in the sense of least squares."""
    if rtol is not None:
        raise Unsupported
    if 0 in x.shape:
        return nothing(call, x)
    return call.xp.linalg.pinv(call.to(x, call.dtype))


# -- spectra ---------------------------------------------------------------------------


@native("fft_c2c")
def fft_c2c(call: Call, x: Array, axes: Sequence[int], scaling: str, forward: bool) -> Array:
    """Transform along axes."""
    if 0 in x.shape:
        return nothing(call, x)
    x = call.to(x, call.dtype)
    transform = call.xp.fft.fft if forward else call.xp.fft.ifft
    for axis in axes:
        x = transform(x, axis=axis, norm=(FORWARD if forward else BACK)[scaling])
    return call.library.copy(x)


@native("fft_r2c")
def fft_r2c(call: Call, x: Array, axis: int, scaling: str) -> Array:
    """Transform real numbers; half of the spectrum says all."""
    if call.dtype_of(x).kind != "f":
        raise Unsupported
    if 0 in x.shape:
        return nothing(call, x)
    return call.xp.fft.rfft(x, axis=axis, norm=FORWARD[scaling])


@native("fft_c2r")
def fft_c2r(call: Call, x: Array, axis: int, n: Any, scaling: str) -> Array:
    """Transform half a spectrum to real numbers."""
    if 0 in x.shape:
        return nothing(call, x)
    return call.xp.fft.irfft(x, n=n, axis=axis, norm=BACK[scaling])
