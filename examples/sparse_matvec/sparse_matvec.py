"""SciPy's sparse matrix-vector product as an operator, with gradients for matrix and vector.

A matrix is three arrays, as `scipy.sparse.csr_array` has them: `data`, the entries; `indices`, the
column of each; `indptr`, where each row begins. All here comes from one number that is linear in
three things, `sum(data[k] * y[row of k] * x[column of k])`: an operator is its derivative by one of
them. So the three operators are each other's gradients, of any order.
"""

import numpy as np
from scipy.sparse import csr_array

import polyop
from polyop import Tensor


def _matrix(data: np.ndarray, indices: Tensor, indptr: Tensor, columns: int) -> csr_array:
    """Make the matrix; SciPy itself looks at indices only if it is asked to, and reads anywhere."""
    starts = indptr.numpy()
    if starts[-1] != data.size:
        raise ValueError(f"indptr ends with {starts[-1]}, and there are {data.size} entries")
    made = csr_array((data, indices.numpy(), starts), shape=(starts.size - 1, columns))
    made.check_format(full_check=True)
    return made


def _product(data: Tensor, x: Tensor) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    """Give both as SciPy takes them, which has no short floats, and the dtype of the result."""
    dtype = np.result_type(data.dtype, x.dtype)
    wide = dtype if np.dtype(dtype).char in "bBhHiIlLqQfdgFDG" else np.dtype(np.float32)
    return data.numpy().astype(wide, copy=False), x.numpy().astype(wide, copy=False), dtype


@polyop.custom_op("examples::sparse_matvec", mutates_args=())
def sparse_matvec(data: Tensor, indices: Tensor, indptr: Tensor, x: Tensor) -> Tensor:
    """Multiply a sparse matrix by a vector.

    Args:
        data: shape (entries,): the entries, row after row.
        indices: shape (entries,), integers: the column of each entry.
        indptr: shape (rows + 1,), integers: row `i` has the entries `indptr[i]` to `indptr[i + 1]`.
        x: shape (columns,).

    Returns:
        The product, shape (rows,).

    Raises:
        ValueError: a column is out of range, or the rows do not follow each other.
    """
    values, vector, dtype = _product(data, x)
    product = _matrix(values, indices, indptr, x.shape[0]) @ vector
    return polyop.from_numpy(product.astype(dtype, copy=False))


@polyop.custom_op("examples::sparse_rmatvec", mutates_args=())
def sparse_rmatvec(
    data: Tensor, indices: Tensor, indptr: Tensor, y: Tensor, columns: int
) -> Tensor:
    """Multiply the transposed matrix by a vector of shape (rows,); shape (columns,)."""
    _check_sides(indptr, y)
    values, vector, dtype = _product(data, y)
    product = _matrix(values, indices, indptr, columns).T @ vector
    return polyop.from_numpy(product.astype(dtype, copy=False))


@polyop.custom_op("examples::sparse_outer", mutates_args=())
def sparse_outer(indices: Tensor, indptr: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Give the entries of the outer product of `y` (rows) and `x` (columns) that the matrix has."""
    _check_sides(indptr, y)
    _matrix(np.empty(indices.shape), indices, indptr, x.shape[0])
    rows = np.repeat(y.numpy(), np.diff(indptr.numpy()))
    return polyop.from_numpy(rows * x.numpy()[indices.numpy()])


# -- what is known before they run ----------------------------------------------------------------


def _check_matrix(indices: Tensor, indptr: Tensor, data: Tensor) -> None:
    polyop.check(indices.ndim == indptr.ndim == 1, "indices and indptr have one axis")
    polyop.check(data.shape == indices.shape, "one index for each entry")


def _check_sides(indptr: Tensor, y: Tensor) -> None:
    polyop.check(y.shape == (indptr.shape[0] - 1,), "one element of y for each row")


@sparse_matvec.register_fake
def sparse_matvec_fake(data, indices, indptr, x):
    _check_matrix(indices, indptr, data)
    dtype = polyop.result_type(data, x)
    return x.new_empty(indptr.shape[0] - 1, dtype=dtype)


@sparse_rmatvec.register_fake
def sparse_rmatvec_fake(data, indices, indptr, y, columns):
    _check_matrix(indices, indptr, data)
    _check_sides(indptr, y)
    return y.new_empty(columns, dtype=polyop.result_type(data, y))


@sparse_outer.register_fake
def sparse_outer_fake(indices, indptr, y, x):
    _check_matrix(indices, indptr, indices)
    _check_sides(indptr, y)
    return x.new_empty(indices.shape[0], dtype=polyop.result_type(y, x))


# -- gradients ------------------------------------------------------------------------------------


def keep_inputs(ctx, inputs, output):
    ctx.save_for_backward(*[t for t in inputs if isinstance(t, Tensor)])
    ctx.columns = inputs[-1].shape[0] if isinstance(inputs[-1], Tensor) else inputs[-1]


def sparse_matvec_backward(ctx, grad):
    data, indices, indptr, x = ctx.saved_tensors
    by_data = sparse_outer(indices, indptr, grad, x.conj())
    return by_data, None, None, sparse_rmatvec(data.conj(), indices, indptr, grad, ctx.columns)


def sparse_rmatvec_backward(ctx, grad):
    data, indices, indptr, y = ctx.saved_tensors
    by_data = sparse_outer(indices, indptr, y.conj(), grad)
    return by_data, None, None, sparse_matvec(data.conj(), indices, indptr, grad), None


def sparse_outer_backward(ctx, grad):
    indices, indptr, y, x = ctx.saved_tensors
    by_y = sparse_matvec(grad, indices, indptr, x.conj())
    return None, None, by_y, sparse_rmatvec(grad, indices, indptr, y.conj(), ctx.columns)


sparse_matvec.register_autograd(sparse_matvec_backward, setup_context=keep_inputs)
sparse_rmatvec.register_autograd(sparse_rmatvec_backward, setup_context=keep_inputs)
sparse_outer.register_autograd(sparse_outer_backward, setup_context=keep_inputs)


# -- batches: many matrices are one, with a block for each on its diagonal ------------------------


def _stacked(size: int, tensors, dims) -> list[Tensor]:
    """Give each tensor with the batch as its first axis."""
    return [
        t.unsqueeze(0).expand(size, *t.shape) if d is None else t.moveaxis(d, 0)
        for t, d in zip(tensors, dims, strict=True)
    ]


def _diagonal(indices: Tensor, indptr: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Give the matrix that has those of a batch, each of `columns` columns, on its diagonal."""
    size, entries = indices.shape
    number = polyop.cumsum(polyop.ones_like(indptr[:, :1]), axis=0) - 1
    moved = (indices + number.to(indices.dtype) * columns).reshape(-1)
    starts = (indptr[:, :-1] + number * entries).reshape(-1)
    return moved, polyop.concat([starts, indptr[-1, -1:] + (size - 1) * entries])


@sparse_matvec.register_vmap
def sparse_matvec_vmap(info, in_dims, data, indices, indptr, x):
    size = info.batch_size
    data, indices, indptr, x = _stacked(size, (data, indices, indptr, x), in_dims)
    blocks = _diagonal(indices, indptr, x.shape[1])
    return sparse_matvec(data.reshape(-1), *blocks, x.reshape(-1)).reshape(size, -1), 0


@sparse_rmatvec.register_vmap
def sparse_rmatvec_vmap(info, in_dims, data, indices, indptr, y, columns):
    size = info.batch_size
    data, indices, indptr, y = _stacked(size, (data, indices, indptr, y), in_dims[:4])
    blocks = _diagonal(indices, indptr, columns)
    out = sparse_rmatvec(data.reshape(-1), *blocks, y.reshape(-1), columns * size)
    return out.reshape(size, columns), 0


@sparse_outer.register_vmap
def sparse_outer_vmap(info, in_dims, indices, indptr, y, x):
    size = info.batch_size
    indices, indptr, y, x = _stacked(size, (indices, indptr, y, x), in_dims)
    blocks = _diagonal(indices, indptr, x.shape[1])
    return sparse_outer(*blocks, y.reshape(-1), x.reshape(-1)).reshape(size, -1), 0


# -- samples --------------------------------------------------------------------------------------


def _drawn(rows: int, columns: int, density: float):
    """Draw a matrix, and vectors for both of its sides."""
    rng = np.random.default_rng(rows)
    mask = rng.random((rows, columns)) < density
    matrix = csr_array(np.where(mask, rng.normal(size=mask.shape), 0.0))
    parts = (
        polyop.tensor(matrix.data, requires_grad=True),
        *map(polyop.tensor, (matrix.indices, matrix.indptr)),
    )
    return parts, *(polyop.tensor(rng.normal(size=n), requires_grad=True) for n in (rows, columns))


@sparse_matvec.samples
def sparse_matvec_samples():
    for rows, columns, density in ((4, 3, 0.6), (5, 7, 0.3), (2, 2, 0.0)):
        matrix, _, x = _drawn(rows, columns, density)
        yield [*matrix, x]


@sparse_rmatvec.samples
def sparse_rmatvec_samples():
    for rows, columns, density in ((4, 3, 0.6), (5, 7, 0.3)):
        matrix, y, _ = _drawn(rows, columns, density)
        yield [*matrix, y, columns]


@sparse_outer.samples
def sparse_outer_samples():
    for rows, columns, density in ((4, 3, 0.6), (5, 7, 0.3)):
        (_, indices, indptr), y, x = _drawn(rows, columns, density)
        yield [indices, indptr, y, x]
