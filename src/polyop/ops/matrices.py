"""More of linear algebra: pseudo-inverse, powers, rank, norms, cross product.

Matrices are the last two axes; integers are computed with as float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from polyop.errors import ArgumentError, UsageTypeError
from polyop.ops import views
from polyop.ops.axes import batch_first
from polyop.ops.creation import asarray
from polyop.ops.define import define
from polyop.ops.door import takes
from polyop.ops.elementwise import abs, multiply, subtract
from polyop.ops.factories import eye
from polyop.ops.factorizations import on_matrices, real_of, require_matrix, stacks, svdvals
from polyop.ops.formulas import Built, adjoint, formula
from polyop.ops.joining import broadcast_arrays, roll
from polyop.ops.linalg import float_of, inv, norm2, require_square
from polyop.ops.linear import matmul
from polyop.ops.reductions import count_nonzero
from polyop.ops.reductions import max as greatest
from polyop.ops.reductions import min as least
from polyop.ops.reductions import sum as total
from polyop.ops.rounding import astype
from polyop.ops.select import where
from polyop.ops.signatures import announce
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]
Array = Any
_numpy: Any = np.linalg  # its stubs lack None for `rtol`


class SlogdetResult(NamedTuple):
    """The direction of a determinant, and the logarithm of its size."""

    sign: Any
    logabsdet: Any


# -- determinant --------------------------------------------------------------------


def _slogdet(x: Array) -> Any:
    require_square("slogdet", x.shape)
    return tuple(np.linalg.slogdet(x))


def _slogdet_fake(x: Meta) -> tuple[Meta, Meta]:
    require_square("slogdet", x.shape)
    require_matrix("slogdet", x.shape, x.dtype)
    one = x.but(shape=x.shape[:-2], dtype=float_of(x.dtype), strides=None)
    return one, one.but(dtype=real_of(x.dtype))


@formula
def slogdet_grad(of: Built, gs: Any, gl: Any, s: Any, x: Any) -> Any:
    """Give the gradient of direction and logarithm; the direction of real ones is constant."""
    g = gl
    if x.dtype.kind == "c":
        g = gl - of.imag(of.conj(gs) * s) * 1j
    return of.expand_dims(of.expand_dims(g, -1), -1) * adjoint(of, of.inv(x))


_slogdet_entry = define(
    "slogdet(Tensor x) -> (Tensor sign, Tensor logabsdet)",
    on_matrices("slogdet", _slogdet),
    fake=_slogdet_fake,
    grad={"x": "slogdet_grad(g0, g1, r0, x)"},
    vmap=stacks("slogdet", 2),
)


def slogdet(x: Any, /) -> SlogdetResult:
    """Give the direction of the determinant, and the logarithm of its size.

    Raises:
        ArgumentError: it is no square matrix of single or double precision.
    """
    return SlogdetResult(*_slogdet_entry(x))


# -- pseudo-inverse -------------------------------------------------------------------


def _pinv(x: Array, rtol: Array | None = None) -> Array:
    if 0 in x.shape[-2:]:
        return np.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    return _numpy.pinv(x, rtol=rtol)


def _pinv_fake(x: Meta, rtol: Meta | None) -> Meta:
    require_matrix("pinv", x.shape, x.dtype)
    *batch, m, n = x.shape
    return x.but(shape=(*batch, n, m), dtype=float_of(x.dtype), strides=None)


def _pinv_vmap(info: Any, in_dims: Sequence[Any], x: Any, rtol: Any) -> Any:
    x, rtol = batch_first(x, in_dims[0]), batch_first(rtol, in_dims[1])
    if in_dims[0] is not None and len(x.shape) < 3:  # the batch is no row
        require_matrix("pinv", tuple(x.shape[1:]), x.dtype)
    if in_dims[0] is None:
        x = views.broadcast_to(x, [info.batch_size, *x.shape])
    if in_dims[1] is not None:  # numbers for each matrix of a stack, as many axes as that has
        ones = [1] * (len(x.shape) - 2 - len(rtol.shape))
        rtol = views.reshape(rtol, [rtol.shape[0], *ones, *rtol.shape[1:]])
    return _pinv_entry(x, rtol=rtol), 0


@formula
def pinv_grad(of: Built, g: Any, x: Any, p: Any) -> Any:
    """Give the gradient of the pseudo-inverse `p`, where the rank stays as it is."""
    gh, ph = adjoint(of, g), adjoint(of, p)
    left, right = gh @ p @ ph, ph @ p @ gh
    return left - x @ (p @ left) + right - (right @ p) @ x - ph @ g @ ph


_pinv_entry = define(
    "pinv(Tensor x, *, Tensor? rtol=None) -> Tensor",
    on_matrices("pinv", _pinv),
    fake=_pinv_fake,
    grad={"x": "pinv_grad(g, x, r)"},
    vmap=_pinv_vmap,
)


def _tolerance(x: Any, rtol: Any) -> Any:
    """Give a relative tolerance as a tensor, or None."""
    if rtol is None or isinstance(rtol, Tensor):
        return rtol
    return asarray(rtol, dtype=real_of(x.dtype))


@takes("Tensor x")
def pinv(x: Any, /, *, rtol: Any = None) -> Any:
    """Give the pseudo-inverse of matrices `(..., M, N)`, of shape `(..., N, M)`.

    Args:
        x: the matrices.
        rtol: singular values below `rtol` times the greatest count as zero; a
            number, or one for each matrix; None for `max(M, N) * eps`.

    Raises:
        ArgumentError: it is no matrix of single or double precision.
    """
    return _pinv_entry(x, rtol=_tolerance(x, rtol))


@takes("Tensor x")
def matrix_rank(x: Any, /, *, rtol: Any = None) -> Any:
    """Count the singular values above `rtol` times the greatest; by default `max(M, N) * eps`."""
    require_matrix("matrix_rank", x.shape, x.dtype)
    m, n = x.shape[-2:]
    sizes = svdvals(x)
    if rtol is None:
        rtol = (m if m >= n else n) * float(np.finfo(real_of(x.dtype)).eps)
    elif isinstance(rtol, Tensor):
        rtol = views.expand_dims(rtol, -1)
    if not (m and n):
        return count_nonzero(sizes, axis=[-1])
    return count_nonzero(sizes > greatest(sizes, axis=[-1], keepdims=True) * rtol, axis=[-1])


# -- powers --------------------------------------------------------------------------


@takes("Tensor x")
def matrix_power(x: Any, n: int, /) -> Any:
    """Multiply a square matrix with itself; negative powers are those of the inverse.

    Raises:
        ArgumentError: it is not square.
        UsageTypeError: the power is no integer.
    """
    require_square("matrix_power", x.shape)
    if not isinstance(n, int):
        raise UsageTypeError("a power of a matrix is an integer", seen=repr(n))
    if n == 0:
        # The matrix has its say, which is nothing: a gradient of zero, not none.
        return where(asarray(True), eye(x.shape[-1], dtype=x.dtype, device=x.device), x)
    factor, n = (inv(x), -n) if n < 0 else (x, n)
    factors = []
    while n:
        if n & 1:
            factors.append(factor)
        n >>= 1
        factor = matmul(factor, factor) if n else factor
    return reduce(matmul, factors) if factors[0] is not x or len(factors) > 1 else x.clone()


# -- norms ---------------------------------------------------------------------------


@takes("Tensor x, bool keepdims")
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """Give the norm of matrices.

    Args:
        x: matrices `(..., M, N)`.
        keepdims: keep their axes, with size one.
        ord: "fro" for the length of all elements, "nuc" for the sum of the
            singular values, 2 and -2 for the greatest and the least of them, 1
            and -1 for sums of columns, infinite ones for sums of rows. None is "fro".

    Raises:
        ArgumentError: another `ord`, or no matrix.
    """
    if len(x.shape) < 2:
        raise ArgumentError("matrix_norm takes matrices", argument="x", seen=f"shape {x.shape}")
    x = x if x.dtype.kind in "fcV" else astype(x, np.dtype(np.float64))
    if ord is None or ord == "fro":
        return norm2(x, axis=[-2, -1], keepdims=keepdims)
    if ord not in _NORMS:
        raise ArgumentError(
            "there is no such norm of matrices",
            argument="ord",
            declared=", ".join(map(str, ["fro", *_NORMS])),
            seen=repr(ord),
        )
    along, pick = _NORMS[ord]
    if pick is not least and any(isinstance(n, int) and n == 0 for n in x.shape[-2:]):
        return total(abs(x), axis=[-2, -1], keepdims=keepdims)  # that of no elements is zero
    if along is not None:
        sums = total(abs(x), axis=[along], keepdims=True)
        return pick(sums, axis=[-2, -1], keepdims=keepdims)
    found = pick(svdvals(x), axis=[-1], keepdims=keepdims)
    return views.expand_dims(found, -1) if keepdims else found


#: For each norm: the axis of its sums, or None for singular values; and what is taken of them.
_NORMS: dict[Any, tuple[int | None, Fn]] = {
    "nuc": (None, total), 2: (None, greatest), -2: (None, least), 1: (-2, greatest),
    -1: (-2, least), np.inf: (-1, greatest), -np.inf: (-1, least),
}  # fmt: skip


# -- vectors and diagonals --------------------------------------------------------------


@takes("Tensor a, Tensor b, int axis")
def cross(a: Any, b: Any, /, *, axis: int = -1) -> Any:
    """Multiply vectors of three elements, which lie along one axis; others broadcast.

    Raises:
        ArgumentError: a vector has another number of elements, or there is no such axis.
    """
    _require_three(a, axis)
    _require_three(b, axis)
    a, b = broadcast_arrays(a, b)

    def turned(x: Any, by: int) -> Any:
        return roll(x, -by, axis=axis)

    first, second = multiply(turned(a, 1), turned(b, 2)), multiply(turned(a, 2), turned(b, 1))
    return subtract(first, second)


def _require_three(x: Any, axis: int) -> None:
    n = len(x.shape)
    if not -n <= axis < n or x.shape[axis] != 3:
        raise ArgumentError(
            "a cross product is one of vectors of three elements",
            argument="axis",
            seen=f"shape {tuple(x.shape)}, axis={axis}",
        )


def diagonal(x: Any, /, *, offset: int = 0) -> Any:
    """Give the diagonals of matrices, as the last axis of a view."""
    return views.diagonal(x, offset, -2, -1)


__all__ = [
    "SlogdetResult", "cross", "diagonal", "matrix_norm", "matrix_power", "matrix_rank", "pinv",
    "slogdet",
]  # fmt: skip
announce(globals())
