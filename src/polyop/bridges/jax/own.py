"""An author's kernels for JAX's own arrays: called at once, or written into programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.interpreters import mlir

from polyop import tree
from polyop.bridges.jax import eager, lowering
from polyop.bridges.jax.frames import JAX, Frame
from polyop.bridges.jax.results import check_results
from polyop.bridges.own_kernels import call_own, checked
from polyop.bridges.told import told
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.library_kernels import library_kernel, library_kernels
from polyop.dispatch.table import Kernel

#: What JAX calls platforms, by our word for the device type, where it is another.
_DEVICES = {"gpu": "cuda", "rocm": "cuda", "tpu": "xla"}


def run(*operands: Any, frame: Frame, cut: Any = None) -> list[Any]:
    """Run a kernel at once: the author's for JAX's arrays, else NumPy's."""
    if library_kernels(frame.op) and operands:
        device = JAX.device(operands[0]).type
        kernel = library_kernel(frame.op, "jax", device)
        if kernel is not None:
            return _results(frame, kernel, operands)
    return eager.run(*operands, frame=frame)


def lower(ctx: Any, *operands: Any, frame: Frame, cut: Any = None) -> Any:
    """Write a call into a program: what the author's kernel for JAX's arrays does, else a call."""
    platform = (getattr(ctx.module_context, "platforms", None) or ("cpu",))[0]
    kernel = library_kernel(frame.op, "jax", _DEVICES.get(platform, platform))
    if kernel is None:
        return lowering.lower(ctx, *operands, frame=frame, cut=cut)

    def traced(*arrays: Any) -> list[Any]:
        return _results(frame, kernel, arrays)

    return mlir.lower_fun(traced, multiple_results=True)(ctx, *operands)


def _results(frame: Frame, kernel: Kernel, operands: Sequence[Any]) -> list[Any]:
    given = frame.values(map(_as_array, operands))
    try:
        out = run_under(PLAIN, call_own, frame.op, kernel, given)
    except Exception as error:
        told(error, frame.op, "jax", kernel.source)
        raise
    leaves = tree.leaves(checked(frame.op, kernel, JAX, given, out))
    check_results(frame, operands, leaves)
    return leaves


def _as_array(x: Any) -> Any:
    return x if isinstance(x, jax.Array) else jax.numpy.asarray(x)
