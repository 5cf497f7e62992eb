"""A kernel in C, compiled when it is first called, and called through `ctypes`."""

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

import polyop
from polyop import Tensor

SOURCE = """
#include <math.h>
#include <stddef.h>
void softplus_f32(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = fmaxf(x[i], 0) + log1pf(expf(-fabsf(x[i])));
}
void softplus_f64(const double *x, double *y, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = fmax(x[i], 0) + log1p(exp(-fabs(x[i])));
}
"""


@cache
def library() -> ctypes.CDLL:
    """Compile the source, once per process."""
    folder = Path(tempfile.mkdtemp(prefix="polyop-softplus-"))
    source, shared = folder / "softplus.c", folder / "softplus.so"
    source.write_text(SOURCE)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", shared, "-lm"], check=True)
    return ctypes.CDLL(str(shared))


@polyop.custom_op("examples::softplus", mutates_args=(), device_types="cpu")
def softplus(x: Tensor) -> Tensor:
    """Compute log(1 + exp(x)) of a float32 or float64 tensor."""
    given = np.ascontiguousarray(x.numpy())
    if given.dtype not in (np.float32, np.float64):
        raise TypeError(f"softplus takes float32 or float64, not {given.dtype}")
    result = np.empty_like(given)
    run = library().softplus_f32 if given.dtype == np.float32 else library().softplus_f64
    address = ctypes.c_void_p
    run(address(given.ctypes.data), address(result.ctypes.data), ctypes.c_size_t(given.size))
    return polyop.from_numpy(result)


@softplus.register_fake
def softplus_fake(x):
    return x.new_empty(x.shape)


def softplus_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def softplus_backward(ctx, grad):
    (x,) = ctx.saved_tensors
    return grad * polyop.sigmoid(x)


softplus.register_autograd(softplus_backward, setup_context=softplus_setup)


@softplus.register_vmap
def softplus_vmap(info, in_dims, x):
    return softplus(x), in_dims[0]  # elementwise: the batch axis stays where it is


@softplus.samples
def softplus_samples():
    yield [polyop.randn(4, 3, requires_grad=True)]
    yield [polyop.randn(5, dtype=polyop.float64, requires_grad=True)]
