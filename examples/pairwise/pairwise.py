"""Squared distances between all rows of two matrices: a fused kernel in C, cut along both.

The index signature says which axes meet. From it follow the shape of the result, batches, and
loops on Dask; the kernel computes each entry from two rows alone, so rows may be cut as well.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

import polyop
from polyop import Tensor

SOURCE = Path(__file__).with_name("pairwise.c")
#: For the processor that this process runs on: each process compiles its own.
FLAGS = ["-O2", "-ftree-vectorize", "-march=native"]


@polyop.custom_op("examples::pairwise", mutates_args=(), index="(m,k),(n,k)->(m,n)")
def pairwise(x: Tensor, y: Tensor) -> Tensor:
    """Give the squared distance between each row of `x` and each row of `y`.

    Args:
        x: shape (..., m, k), float32 or float64.
        y: shape (..., n, k), of the same dtype.

    Returns:
        Shape (..., m, n).
    """
    difference = x.numpy()[..., :, None, :] - y.numpy()[..., None, :, :]
    return polyop.from_numpy(np.asarray(np.square(difference).sum(-1)))


def compile_kernel() -> None:
    """Build the kernel in C, which takes the place of the one above on the CPU."""
    shared = Path(tempfile.mkdtemp(prefix="polyop-pairwise-")) / "pairwise.so"
    include = f"-I{polyop.get_include()}"
    subprocess.run(["cc", *FLAGS, "-shared", "-fPIC", include, SOURCE, "-o", shared], check=True)
    polyop.ops.load_library(shared)


compile_kernel()
pairwise.register_chunks("m", "n")


def keep_rows(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def summed_to(grad, like):
    """Sum over the loops that repeat an argument."""
    extra = grad.ndim - like.ndim
    repeated = [i for i, n in enumerate(like.shape[:-2]) if n == 1 and grad.shape[extra + i] != 1]
    if repeated:
        grad = grad.sum([extra + i for i in repeated], keepdims=True)
    return grad.sum(list(range(extra))) if extra else grad


def pairwise_backward(ctx, grad):
    x, y = ctx.saved_tensors
    across = grad.transpose(-2, -1)
    of_x = 2 * (x * grad.sum(-1, keepdims=True) - grad @ y)
    of_y = 2 * (y * across.sum(-1, keepdims=True) - across @ x)
    return summed_to(of_x, x), summed_to(of_y, y)


pairwise.register_autograd(pairwise_backward, setup_context=keep_rows)


@pairwise.samples
def pairwise_samples():
    rng = np.random.default_rng(0)

    def rows(*shape, dtype="float64"):
        return polyop.tensor(rng.normal(size=shape).astype(dtype), requires_grad=True)

    yield [rows(5, 3), rows(11, 3)]
    yield [rows(2, 1, 4, 3), rows(3, 2, 3)]
    yield [rows(3, 2, dtype="float32"), rows(9, 2, dtype="float32")]
