"""Linear algebra: inverse, determinant, equations, Cholesky, norms, trace.

Matrices are the last two axes. Integers are computed with as float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.errors import ArgumentError
from polyop.ops.axes import HALF, SINGLE, Axes, batch_first, is_half
from polyop.ops.comparison import equal, not_equal
from polyop.ops.define import ON_TENSORS, define
from polyop.ops.door import takes
from polyop.ops.elementwise import abs, conj
from polyop.ops.formulas import Built, formula
from polyop.ops.minors import minors
from polyop.ops.reductions import any, reduction, sum_kernel
from polyop.ops.reductions import max as greatest
from polyop.ops.reductions import min as least
from polyop.ops.reductions import sum as total
from polyop.ops.select import where
from polyop.ops.shapes import broadcast, promote
from polyop.ops.signatures import announce
from polyop.ops.views import diagonal, expand_dims, matrix_transpose, squeeze
from polyop.tensor.meta import Meta, Shape

Fn = Callable[..., Any]
Array = Any


def float_of(dtype: DType) -> DType:
    """Give the dtype that linear algebra computes in."""
    return np.dtype(np.float64) if dtype.kind in "biu" else dtype


def require_square(name: str, shape: Shape) -> None:
    """Refuse what is no square matrix.

    Raises:
        ArgumentError: it is none.
    """
    if len(shape) < 2 or not (shape[-1] is shape[-2] or shape[-1] == shape[-2]):
        raise ArgumentError(
            f"core::{name} takes square matrices", op=f"core::{name}", seen=f"shape {shape}"
        )


def guarded(name: str, compute: Fn) -> Fn:
    """Give the kernel of a function on square matrices, with errors of ours."""

    def kernel(x: Array, *more: Array) -> Array:
        require_square(name, x.shape)
        try:
            return np.asarray(compute(x, *more), order="C")
        except np.linalg.LinAlgError as error:
            raise ArgumentError(
                f"core::{name} cannot compute this: {error}",
                op=f"core::{name}",
                seen=f"{x.dtype.name}{list(x.shape)}",
                fix="look at the matrix: it is singular, or not positive definite",
            ) from None

    return kernel


def square_fake(name: str) -> Fn:
    """Give the fake rule of a function from square matrices to matrices."""

    def fake(x: Meta) -> Meta:
        require_square(name, x.shape)
        return x.but(dtype=float_of(x.dtype), strides=None)

    return fake


def stack_vmap(name: str) -> Fn:
    """Give the batching rule of a function that takes stacks of matrices anyway."""

    def batched(info: Any, in_dims: Sequence[Any], x: Any) -> Any:
        x = batch_first(x, in_dims[0])
        require_square(name, tuple(x.shape[1:]))  # of a sample: the batch is no row
        return ON_TENSORS[name](x), 0

    return batched


def square(name: str, compute: Fn, grad: str | None, fake: Fn | None = None) -> Fn:
    """Define a function of square matrices."""
    return define(
        f"{name}(Tensor x) -> Tensor",
        guarded(name, compute),
        fake=fake or square_fake(name),
        grad=None if grad is None else {"x": grad},
        vmap=stack_vmap(name),
    )


# -- inverse and determinant ----------------------------------------------------


def _cofactors(x: Array, along: Sequence[Array]) -> Array:
    """Give the gradient of the determinant, or of its derivative along matrices: NOTE [Minors]."""
    _require_fitting(x.shape, [a.shape for a in along])
    # A matrix with NaN or an infinity in it has no singular values: all is NaN.
    whole = np.isfinite(x).all((-2, -1))[..., None, None]
    u, s, vh = np.linalg.svd(np.where(whole, x, 0))
    uh, v = u.conj().swapaxes(-1, -2), vh.conj().swapaxes(-1, -2)
    inner = minors(np, s, [(uh @ a @ v).conj() for a in along], np.arange(s.shape[-1]))
    phase = np.linalg.det(u) * np.linalg.det(vh)
    return np.where(whole, phase.conj()[..., None, None] * (u @ inner @ vh), np.nan)


def _require_fitting(shape: Shape, others: Sequence[Shape]) -> None:
    for other in others:
        require_square("cofactors", other)
        if not (other[-1] is shape[-1] or other[-1] == shape[-1]):
            raise ArgumentError(
                "a determinant has derivatives along matrices of its own size",
                op="core::cofactors",
                argument="along",
                declared=f"{shape[-1]} rows",
                seen=f"shape {other}",
            )


def _cofactors_fake(x: Meta, along: Sequence[Meta]) -> Meta:
    require_square("cofactors", x.shape)
    _require_fitting(x.shape, [a.shape for a in along])
    batch = broadcast("cofactors", x.shape[:-2], *[a.shape[:-2] for a in along])
    dtype = float_of(promote(x.dtype, *[a.dtype for a in along]))
    return x.but(shape=(*batch, *x.shape[-2:]), dtype=dtype, strides=None)


def _cofactors_vmap(info: Any, in_dims: Sequence[Any], x: Any, along: Sequence[Any]) -> Any:
    dims = [in_dims[0], *(in_dims[1] or [])]
    given = [batch_first(v, d) for v, d in zip([x, *along], dims, strict=True)]
    shapes = [v.shape[d is not None :] for v, d in zip(given, dims, strict=True)]
    for shape in shapes:
        require_square("cofactors", tuple(shape))
    ndim = max(map(len, shapes))
    x, *along = [v if d is None else _padded(v, ndim) for v, d in zip(given, dims, strict=True)]
    return cofactors(x, along), 0


@formula
def derived_along(of: Built, x: Any, along: Sequence[Any], g: Any, shape: Any) -> Any:
    """Give the gradient of a derivative of the determinant: it is one along one more matrix."""
    return of.sum_to(of.cofactors(x, [*along, g]), shape)


@formula
def derived_along_each(of: Built, x: Any, along: Sequence[Any], g: Any) -> list[Any]:
    """Give the gradients of the matrices along which it is taken: all of them count alike."""
    rest = [[*along[:i], *along[i + 1 :]] for i in range(len(along))]
    return [of.derived_along(x, r, g, a.shape) for r, a in zip(rest, along, strict=True)]


def _det_fake(x: Meta) -> Meta:
    require_square("det", x.shape)
    return x.but(shape=x.shape[:-2], dtype=float_of(x.dtype), strides=None)


def _column(text: str) -> str:
    """Spell a number for each matrix as something that multiplies matrices."""
    return f"expand_dims(expand_dims({text}, -1), -1)"


_INV = "matrix_transpose(conj(r))"
inv = square("inv", np.linalg.inv, f"-matmul({_INV}, matmul(g, {_INV}))")
det = square("det", np.linalg.det, f"{_column('g')} * cofactors(x, [])", _det_fake)
cofactors = define(
    "cofactors(Tensor x, Tensor[] along=[]) -> Tensor",
    guarded("cofactors", _cofactors),
    fake=_cofactors_fake,
    grad={
        "x": "derived_along(x, along, g, x.shape)",
        "along": "derived_along_each(x, along, g)",
    },
    vmap=_cofactors_vmap,
)


# -- equations ----------------------------------------------------------------


def _solve_fake(a: Meta, b: Meta) -> Meta:
    _require_solvable(a.shape, b.shape)
    batch = broadcast("solve", a.shape[:-2], b.shape[:-2])
    dtype = float_of(promote(a.dtype, b.dtype))
    return a.but(shape=(*batch, *b.shape[-2:]), dtype=dtype, strides=None)


def _require_solvable(a: Shape, b: Shape) -> None:
    require_square("solve", a)
    if len(b) < 2 or not (a[-1] is b[-2] or a[-1] == b[-2]):
        raise _unsolvable(a, b)


def _unsolvable(a: Shape, b: Shape) -> ArgumentError:
    return ArgumentError(
        f"equations with a matrix of shape {a} and a right side of shape {b} do not fit",
        op="core::solve",
        declared="the right side has one row for each row of the matrix",
        seen=f"{a[-1]} and {b[-2] if len(b) > 1 else b}",
    )


def _solve(a: Array, b: Array) -> Array:
    if b.ndim < 2 or b.shape[-2] != a.shape[-1]:
        raise _unsolvable(a.shape, b.shape)
    # NumPy computes float32 beside whole numbers in float64, whatever they promote to.
    dtype = float_of(promote(a.dtype, b.dtype))
    return np.linalg.solve(a.astype(dtype, copy=False), b.astype(dtype, copy=False))


def _solve_vmap(info: Any, in_dims: Sequence[Any], a: Any, b: Any) -> Any:
    dims = in_dims[:2]
    given = [batch_first(v, d) for v, d in zip((a, b), dims, strict=True)]
    shapes = [tuple(v.shape[d is not None :]) for v, d in zip(given, dims, strict=True)]
    _require_solvable(*shapes)
    ndim = max(map(len, shapes))
    a, b = (v if d is None else _padded(v, ndim) for v, d in zip(given, dims, strict=True))
    return solve_matrix(a, b), 0


def _padded(x: Any, ndim: int) -> Any:
    """Put axes of size one behind the batch, which stands first."""
    ones = [1] * (ndim + 1 - len(x.shape))
    return ON_TENSORS["reshape"](x, [x.shape[0], *ones, *x.shape[1:]]) if ones else x


_ADJOINT = "solve_matrix(matrix_transpose(conj(a)), g)"
solve_matrix = define(
    "solve_matrix(Tensor a, Tensor b) -> Tensor",
    guarded("solve", _solve),
    fake=_solve_fake,
    grad={
        "a": f"-sum_to(matmul({_ADJOINT}, matrix_transpose(conj(r))), a.shape)",
        "b": f"sum_to({_ADJOINT}, b.shape)",
    },
    vmap=_solve_vmap,
)


@takes("Tensor a, Tensor b")
def solve(a: Any, b: Any) -> Any:
    """Give `x` with `a @ x == b`; `b` with one axis is a vector, else a stack of matrices."""
    if len(b.shape) != 1:
        return solve_matrix(a, b)
    return squeeze(solve_matrix(a, expand_dims(b, -1)), -1)


# -- Cholesky -------------------------------------------------------------------


def _half_tril(x: Array) -> Array:
    """Keep the lower triangle and half the diagonal."""
    return np.tril(x) - np.eye(x.shape[-1], dtype=x.dtype) * (x * x.dtype.type(0.5))


def _hermitian(x: Array) -> Array:
    return (x + x.conj().swapaxes(-1, -2)) * x.dtype.type(0.5)


def _lower(x: Array) -> Array:
    # Both triangles are read, so that the gradient is that of a symmetric argument.
    return np.linalg.cholesky(x)


_MH = "matrix_transpose(conj(r))"
half_tril = square("half_tril", _half_tril, "half_tril(g)")
hermitian_part = square("hermitian_part", _hermitian, "hermitian_part(g)")
cholesky_lower = square(
    "cholesky_lower",
    _lower,
    f"hermitian_part(matmul(solve_matrix({_MH}, half_tril(matmul({_MH}, g))), inv(r)))",
)


def cholesky(x: Any, *, upper: bool = False) -> Any:
    """Give the triangular `L` with `L @ L^H == x`, or with `upper` the `U` with `U^H @ U == x`."""
    lower = cholesky_lower(x)
    return conj(matrix_transpose(lower)) if upper else lower


# -- norms and trace --------------------------------------------------------------


def norm2_kernel(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """Give the Euclidean length."""
    half = x.itemsize <= HALF and is_half(x.dtype)
    y = x.astype(SINGLE if half else float_of(x.dtype), copy=False)
    squares = (y * y.conj()).real if y.dtype.kind == "c" else y * y
    found = np.sqrt(sum_kernel(squares, axis, None, keepdims))
    return found.astype(x.dtype) if half else found


norm2 = reduction(
    "norm2",
    norm2_kernel,
    "spread(g * above(r) / (r + (r == 0)), x.shape, axis, keepdims) * x",
)


FLOAT64 = np.dtype(np.float64)


@takes("Tensor x, int[1]? axis, bool keepdims")
def vector_norm(x: Any, *, axis: Any = None, keepdims: bool = False, ord: float = 2.0) -> Any:
    """Give the norm of vectors: `sum(|x| ** ord) ** (1 / ord)`.

    Args:
        x: the vectors.
        axis: the axes that hold the elements of a vector; None for all.
        keepdims: keep those axes, with size one.
        ord: any number; infinite ones give the greatest and the least size, 0
            the count of the elements that are not zero.
    """
    given = {"axis": axis, "keepdims": keepdims}
    if ord == 2:
        return norm2(x, **given)
    if is_half(x.dtype):
        wide = ON_TENSORS["astype"](x, SINGLE)
        return ON_TENSORS["astype"](vector_norm(wide, ord=ord, **given), x.dtype)
    size = abs(x if x.dtype.kind in "fcV" else ON_TENSORS["astype"](x, FLOAT64))
    if ord == 0:
        return total(ON_TENSORS["astype"](not_equal(x, 0), size.dtype), **given)
    if ord == 1:
        return total(size, **given)
    if ord == np.inf and _any_empty(x.shape):
        return total(size, **given)  # no element: zeros
    if ord in {np.inf, -np.inf}:
        return (greatest if ord > 0 else least)(size, **given)
    return _root_of_powers(size, ord, given)


def _any_empty(shape: Any) -> bool:
    """Tell whether a size is known to be zero."""
    return 0 in [n for n in shape if n.__class__ is int]


def _root_of_powers(size: Any, ord: float, given: Any) -> Any:
    """Give a norm whose gradient at zeros, where it has none, is zero, as PyTorch has it."""
    zero = equal(size, 0)
    powers = where(zero, 0, where(zero, 1, size) ** ord)
    summed = total(powers, **given)
    # One zero makes a negative power infinite, and so the norm zero; NaN stays NaN.
    none = any(zero, **given) & equal(summed, summed) if ord < 0 else equal(summed, 0)
    return where(none, 0, where(none, 1, summed) ** (1 / ord))


def trace(x: Any, *, offset: int = 0, dtype: Any = None) -> Any:
    """Sum the diagonal of matrices."""
    return total(diagonal(x, offset, -2, -1), axis=[-1], dtype=dtype)


announce(globals())

__all__ = [
    "cholesky",
    "cofactors",
    "det",
    "inv",
    "norm2",
    "solve",
    "trace",
    "vector_norm",
]
