"""Products of vectors and matrices.

The gradient of a product of matrices is a product with the other factor,
conjugated and transposed, and summed where batches were broadcast. As
operators (`matmul_left` for the left factor, `matmul_right` for the right one)
these hide the cases of one axis; with `matmul` they are closed under gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.errors import ArgumentError
from polyop.ops.axes import batch_first, real_axis
from polyop.ops.broadcasting import sum_to_on_arrays
from polyop.ops.define import ON_TENSORS, define
from polyop.ops.door import takes
from polyop.ops.shapes import broadcast, promote
from polyop.ops.views import expand_dims, matrix_transpose, permute_dims, reshape, squeeze
from polyop.tensor.meta import Meta, Shape, Size

Fn = Callable[..., Any]
Array = Any


def matmul_kernel(a: Array, b: Array) -> Array:
    """Multiply matrices, or a matrix and a vector."""
    try:
        # NumPy would keep the order of batches in memory, which fakes need not know.
        return _kept(np.matmul(a, b, order="C"), a, b)
    except ValueError:
        matmul_shape(a.shape, b.shape)
        raise


def _kept(product: Array, a: Array, b: Array) -> Array:
    """Keep the factors' dtype: NumPy gives the products of small floats in float32."""
    dtype = product.dtype
    if dtype is a.dtype or dtype is b.dtype:
        return product
    wanted = promote(a.dtype, b.dtype)
    return product if dtype == wanted else product.astype(wanted)


def matmul_shape(a: Shape, b: Shape) -> Shape:
    """Give the shape of a product.

    Raises:
        ArgumentError: the shapes do not fit.
    """
    if not a or not b:
        raise _misfit(a, b, "an array without axes", "multiply with *")
    inner: Size = b[-2] if len(b) > 1 else b[0]
    if not (a[-1] is inner or a[-1] == inner):
        raise _misfit(a, b, f"sizes {a[-1]} and {inner}", "transpose a factor")
    batch = broadcast("matmul", a[:-2], b[:-2])
    rows = a[-2:-1] if len(a) > 1 else ()
    columns = b[-1:] if len(b) > 1 else ()
    return (*batch, *rows, *columns)


def _misfit(a: Shape, b: Shape, seen: str, fix: str) -> ArgumentError:
    return ArgumentError(
        f"matrices of the shapes {a} and {b} cannot be multiplied",
        op="core::matmul",
        declared="the last axis of a and the last but one of b have one size",
        seen=seen,
        fix=fix,
    )


def matmul_fake(a: Meta, b: Meta) -> Meta:
    """Describe the product."""
    return a.but(
        shape=matmul_shape(a.shape, b.shape), dtype=promote(a.dtype, b.dtype), strides=None
    )


# -- the gradients' products --------------------------------------------------


def matmul_left_kernel(x: Array, b: Array, shape: Sequence[int]) -> Array:
    """Give the gradient of a left factor of some shape: `x @ b^H`."""
    if b.ndim == 1:
        x, b = x[..., None], b[:, None]
    if len(shape) == 1:
        x = x[..., None, :]
    product = _kept(np.matmul(x, b.conj().swapaxes(-1, -2), order="C"), x, b)
    return _fresh(product[..., 0, :] if len(shape) == 1 else product, shape)


def matmul_right_kernel(a: Array, x: Array, shape: Sequence[int]) -> Array:
    """Give the gradient of a right factor of some shape: `a^H @ x`."""
    if len(shape) == 1:
        x = x[..., None]
    if a.ndim == 1:
        x, a = x[..., None, :], a[None, :]
    product = _kept(np.matmul(a.conj().swapaxes(-1, -2), x, order="C"), a, x)
    return _fresh(product[..., 0] if len(shape) == 1 else product, shape)


def _fresh(product: Array, shape: Sequence[int]) -> Array:
    found = sum_to_on_arrays(product, shape)
    return found if found.base is None else found.copy()


def _factor_fake(x: Meta, y: Meta, shape: Sequence[Size]) -> Meta:
    return x.but(shape=tuple(shape), dtype=promote(x.dtype, y.dtype), strides=None)


def matmul_vmap(info: Any, in_dims: Sequence[Any], a: Any, b: Any) -> Any:
    """Multiply batches: every factor becomes a matrix behind the axis of the batch."""
    rows, columns = _ndim(a, in_dims[0]) > 1, _ndim(b, in_dims[1]) > 1
    left = _matrices(a, in_dims[0], -2)
    right = _matrices(b, in_dims[1], -1)
    left, right = _aligned(left, in_dims[0], right, in_dims[1])
    product = matmul(left, right)
    if not columns:
        product = squeeze(product, -1)
    if not rows:
        product = squeeze(product, -1 if not columns else -2)
    return product, 0


def _ndim(x: Any, dim: int | None) -> int:
    return len(x.shape) - (dim is not None)


def _sample(x: Any, dim: int | None) -> Shape:
    """Give the shape of one sample."""
    shape: Shape = x.shape
    return shape if dim is None else shape[:dim] + shape[dim + 1 :]


def _matrices(x: Any, dim: int | None, axis: int) -> Any:
    """Move the batch to the front, and make a vector a matrix."""
    vector = _ndim(x, dim) == 1
    x = batch_first(x, dim)
    return expand_dims(x, axis) if vector else x


def _aligned(a: Any, a_dim: int | None, b: Any, b_dim: int | None) -> tuple[Any, Any]:
    """Put axes of size one behind the batch, so that both have as many axes."""
    ndim = max(_ndim(a, a_dim), _ndim(b, b_dim))
    return _padded(a, a_dim, ndim), _padded(b, b_dim, ndim)


def _padded(x: Any, dim: int | None, ndim: int) -> Any:
    missing = ndim - _ndim(x, dim)
    if dim is None or not missing:
        return x
    return reshape(x, [x.shape[0], *[1] * missing, *x.shape[1:]])


def matmul_left_vmap(
    info: Any, in_dims: Sequence[Any], x: Any, b: Any, shape: Sequence[Size]
) -> Any:
    """Multiply batches for the gradient of a left factor."""
    x = batch_first(x, in_dims[0])
    if _ndim(b, in_dims[1]) == 1:
        x = expand_dims(x, -1)
    if len(shape) == 1:
        x = expand_dims(x, -2)
    b = _matrices(b, in_dims[1], -1)
    return _factor_vmap(info, "matmul_left", (x, b), in_dims, shape), 0


def matmul_right_vmap(
    info: Any, in_dims: Sequence[Any], a: Any, x: Any, shape: Sequence[Size]
) -> Any:
    """Multiply batches for the gradient of a right factor."""
    x = batch_first(x, in_dims[1])
    if len(shape) == 1:
        x = expand_dims(x, -1)
    if _ndim(a, in_dims[0]) == 1:
        x = expand_dims(x, -2)
    a = _matrices(a, in_dims[0], -2)
    return _factor_vmap(info, "matmul_right", (a, x), in_dims, shape), 0


def _factor_vmap(
    info: Any, name: str, pair: tuple[Any, Any], in_dims: Sequence[Any], shape: Sequence[Size]
) -> Any:
    """Call on matrices only; the shape of a vector becomes that of a row or a column."""
    matrix = list(shape)
    if len(shape) == 1:
        matrix = [1, *shape] if name == "matmul_left" else [*shape, 1]
    (x, y), (x_dim, y_dim) = pair, in_dims[:2]
    x, y = _aligned(x, x_dim, y, y_dim)
    ndim = max(_ndim(x, x_dim), _ndim(y, y_dim))
    whole = [info.batch_size, *[1] * (ndim - len(matrix)), *matrix]
    return reshape(ON_TENSORS[name](x, y, whole), [info.batch_size, *shape])


matmul = define(
    "matmul(Tensor a, Tensor b) -> Tensor",
    matmul_kernel,
    fake=matmul_fake,
    grad={"a": "matmul_left(g, b, a.shape)", "b": "matmul_right(a, g, b.shape)"},
    vmap=matmul_vmap,
)
matmul_left = define(
    "matmul_left(Tensor x, Tensor b, SymInt[] shape) -> Tensor",
    matmul_left_kernel,
    fake=_factor_fake,
    # A batch of one factor leaves the other as it was, so its gradient is summed over the batch.
    grad={"x": "sum_to(matmul(g, b), x.shape)", "b": "matmul_right(g, x, b.shape)"},
    vmap=matmul_left_vmap,
)
matmul_right = define(
    "matmul_right(Tensor a, Tensor x, SymInt[] shape) -> Tensor",
    matmul_right_kernel,
    fake=_factor_fake,
    grad={"a": "matmul_left(x, g, a.shape)", "x": "sum_to(matmul(a, g), x.shape)"},
    vmap=matmul_right_vmap,
)


# -- products of vectors --------------------------------------------------------


_vecdot: Fn = np.vecdot  # its stub lacks `axis`


def vecdot_kernel(a: Array, b: Array, axis: int = -1) -> Array:
    """Sum `conj(a) b` along an axis, counted from the last."""
    if axis >= 0:
        vecdot_shape(a.shape, b.shape, axis)
    try:
        found = _kept(_vecdot(a, b, axis=axis), a, b)
    except ValueError:
        vecdot_shape(a.shape, b.shape, axis)
        raise
    return found if found.ndim < 2 else np.ascontiguousarray(found)


def vecdot_shape(a: Shape, b: Shape, axis: int) -> Shape:
    """Give the shape of products of vectors.

    Raises:
        ArgumentError: the axis is not one from the last, or the shapes do not fit.
    """
    if not -min(len(a), len(b)) <= axis < 0:
        raise ArgumentError(
            "vecdot counts its axis from the last one",
            op="core::vecdot",
            argument="axis",
            declared=f"{-min(len(a), len(b))} to -1",
            seen=axis,
        )
    if not (a[axis] is b[axis] or a[axis] == b[axis]):
        raise ArgumentError(
            "vecdot takes vectors of one size", op="core::vecdot", seen=f"{a[axis]} and {b[axis]}"
        )
    whole = broadcast("vecdot", a, b)
    at = len(whole) + axis
    return whole[:at] + whole[at + 1 :]


def vecdot_fake(a: Meta, b: Meta, axis: int) -> Meta:
    """Describe the products."""
    shape = vecdot_shape(a.shape, b.shape, axis)
    return a.but(shape=shape, dtype=promote(a.dtype, b.dtype), strides=None)


def vecdot_vmap(info: Any, in_dims: Sequence[Any], a: Any, b: Any, axis: int) -> Any:
    """Multiply batches of vectors."""
    vecdot_shape(_sample(a, in_dims[0]), _sample(b, in_dims[1]), axis)
    a, b = _aligned(batch_first(a, in_dims[0]), in_dims[0], batch_first(b, in_dims[1]), in_dims[1])
    return vecdot(a, b, axis=axis), 0


vecdot = define(
    "vecdot(Tensor a, Tensor b, *, int axis=-1) -> Tensor",
    vecdot_kernel,
    fake=vecdot_fake,
    grad={
        "a": "sum_to(expand_dims(conj(g), axis) * b, a.shape)",
        "b": "sum_to(expand_dims(g, axis) * a, b.shape)",
    },
    vmap=vecdot_vmap,
)


# -- compositions -------------------------------------------------------------


def outer(a: Any, b: Any) -> Any:
    """Multiply each element of one vector with each of another.

    Raises:
        ArgumentError: one is no vector.
    """
    shapes = [tuple(getattr(v, "shape", ())) for v in (a, b)]
    if [len(shape) for shape in shapes] != [1, 1]:
        raise ArgumentError(
            "an outer product is one of vectors",
            op="core::outer",
            seen=f"shapes {shapes[0]} and {shapes[1]}",
            fix="call tensordot(a, b, axes=0)",
        )
    return expand_dims(a, -1) * b


def mv(a: Any, x: Any) -> Any:
    """Multiply a matrix with a vector."""
    return matmul(a, x)


def dot(a: Any, b: Any) -> Any:
    """Sum the products of two vectors' elements; nothing is conjugated."""
    return matmul(a, b)


@takes("Tensor x1, Tensor x2")
def tensordot(x1: Any, x2: Any, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Any:
    """Sum the products of two tensors over some axes of each.

    Args:
        x1: a tensor.
        x2: another.
        axes: how many axes meet, the last of `x1` and the first of `x2`; or which.

    Raises:
        ArgumentError: sizes that meet differ, or a number of axes is out of range.
    """
    left, right = _meeting(x1, x2, axes)
    rows = [i for i in range(len(x1.shape)) if i not in left]
    columns = [i for i in range(len(x2.shape)) if i not in right]
    product = matmul(
        _as_matrix(permute_dims(x1, [*rows, *left]), len(rows)),
        _as_matrix(permute_dims(x2, [*right, *columns]), len(right)),
    )
    return reshape(product, [*[x1.shape[i] for i in rows], *[x2.shape[i] for i in columns]])


def _meeting(a: Any, b: Any, axes: Any) -> tuple[list[int], list[int]]:
    n, m = len(a.shape), len(b.shape)
    if isinstance(axes, int):
        if not 0 <= axes <= min(n, m):
            raise ArgumentError(
                f"{axes} axes cannot meet",
                op="core::tensordot",
                argument="axes",
                declared=f"0 to {min(n, m)}",
                seen=axes,
            )
        axes = (range(n - axes, n), range(axes))
    left = [real_axis("tensordot", i, n) for i in axes[0]]
    right = [real_axis("tensordot", i, m) for i in axes[1]]
    sizes = [a.shape[i] for i in left], [b.shape[i] for i in right]
    if len(left) != len(right) or sizes[0] != sizes[1]:
        raise ArgumentError(
            "the axes that meet differ in size",
            op="core::tensordot",
            argument="axes",
            seen=f"{sizes[0]} and {sizes[1]}",
        )
    return left, right


def _as_matrix(x: Any, rows: int) -> Any:
    height: Any = 1
    for n in x.shape[:rows]:
        height = height * n
    width: Any = 1
    for n in x.shape[rows:]:
        width = width * n
    return reshape(x, [height, width])


__all__ = [
    "dot",
    "matmul",
    "matmul_left",
    "matmul_right",
    "matrix_transpose",
    "mv",
    "outer",
    "tensordot",
    "vecdot",
]
