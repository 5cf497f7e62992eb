"""SciPy's banded solver as an operator; its gradient is one more solve, with the transposed matrix.

For `A x = b`: if `w` solves `A^T w = grad`, then the gradient of `b` is `w`, and
that of `A` is `-w x^T`, of which the band keeps its entries (the adjoint method).
"""

import numpy as np
from scipy.linalg import solve_banded as scipy_solve_banded

import polyop
from polyop import Tensor


@polyop.custom_op("examples::solve_tridiagonal", mutates_args=())
def solve_tridiagonal(bands: Tensor, b: Tensor) -> Tensor:
    """Solve `A x = b`.

    Args:
        bands: shape (3, n): the diagonal above, the diagonal, the diagonal
            below, as `scipy.linalg.solve_banded` has them; the first entry of
            the first row and the last of the last row are not used.
        b: shape (n,).

    Returns:
        x, shape (n,).
    """
    x = scipy_solve_banded((1, 1), bands.numpy(), b.numpy())
    return polyop.from_numpy(x.astype(b.numpy().dtype))


@solve_tridiagonal.register_fake
def solve_fake(bands, b):
    polyop.check(bands.shape[1] == b.shape[0], "one column of bands for each equation")
    return polyop.empty_like(b)


def transposed(bands: Tensor) -> Tensor:
    """Give the bands of the transposed matrix."""
    above, diagonal, below = bands[0], bands[1], bands[2]
    return polyop.stack([polyop.roll(below, 1, axis=0), diagonal, polyop.roll(above, -1, axis=0)])


def solve_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], output)


def solve_backward(ctx, grad):
    bands, x = ctx.saved_tensors
    w = solve_tridiagonal(transposed(bands), grad)
    # Entry (i, j) of A has the gradient -w[i] x[j]; row 0 of bands holds (j - 1, j).
    n = x.shape[0]
    inner = polyop.ones_like(x)
    first, last = inner.clone(), inner.clone()
    first[0:1] = 0.0
    last[n - 1 : n] = 0.0
    above = -polyop.roll(w, 1, axis=0) * x * first
    below = -polyop.roll(w, -1, axis=0) * x * last
    return polyop.stack([above, -w * x, below]), w


solve_tridiagonal.register_autograd(solve_backward, setup_context=solve_setup)


@solve_tridiagonal.samples
def solve_samples():
    rng = np.random.default_rng(0)
    for n in (2, 6):
        bands = rng.normal(size=(3, n))
        bands[1] += 6.0  # diagonally dominant, so the system is well posed
        yield [
            polyop.tensor(bands, requires_grad=True),
            polyop.tensor(rng.normal(size=n), requires_grad=True),
        ]
