"""Decompositions of operators that choose elements, move axes, or make new tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polyop.devices import Device, DType
from polyop.ops.comparison import greater_equal, isinf, isnan, logical_not
from polyop.ops.creation import arange, full, full_like
from polyop.ops.decomposition_table import core
from polyop.ops.elementwise import negative, subtract
from polyop.ops.joining import concat
from polyop.ops.rounding import astype
from polyop.ops.select import where
from polyop.ops.shapes import normal_axis
from polyop.ops.view_inverses import contiguous_copy
from polyop.ops.view_metas import moved_order
from polyop.ops.views import expand_dims, permute_dims
from polyop.tensor.tensor import Tensor

FLOAT32 = np.dtype(np.float32)


# -- choosing -------------------------------------------------------------------


@core("masked_fill", "masked_fill.Scalar")
def masked_fill_parts(x: Tensor, mask: Tensor, value: Any) -> Any:
    """Choose a value in the dtype of `x` where the mask holds."""
    if isinstance(value, Tensor):
        return where(mask, astype(value, x.dtype), x)
    # A number of a stronger kind would change the dtype.
    return where(mask, astype(full([], value, device=x.device), x.dtype), x)


@core("tril")
def tril_parts(x: Tensor, k: int = 0) -> Any:
    """Keep what is on and under a diagonal."""
    return contiguous_copy(where(greater_equal(_offsets(x), -k), x, False))


@core("triu")
def triu_parts(x: Tensor, k: int = 0) -> Any:
    """Keep what is on and over a diagonal."""
    return contiguous_copy(where(greater_equal(negative(_offsets(x)), k), x, False))


def _offsets(x: Tensor) -> Any:
    """Give for each place how far under the diagonal it is."""
    rows, columns = (arange(n, device=x.device) for n in x.shape[-2:])
    return subtract(expand_dims(rows, -1), columns)


@core("isfinite")
def isfinite_parts(x: Tensor) -> Any:
    """Exclude infinities and NaN."""
    return logical_not(isinf(x) | isnan(x))


# -- shapes and new tensors -------------------------------------------------------


@core("stack")
def stack_parts(arrays: Sequence[Tensor], axis: int = 0) -> Any:
    """Join along a new axis."""
    return concat([expand_dims(x, axis) for x in arrays], axis=axis)


@core("matrix_transpose")
def matrix_transpose_parts(x: Tensor) -> Any:
    """Exchange the last two axes."""
    return transpose_parts(x, -2, -1)


@core("transpose")
def transpose_parts(x: Tensor, axis1: int, axis2: int) -> Any:
    """Exchange two axes."""
    i, j = (normal_axis("transpose", a, x.ndim) for a in (axis1, axis2))
    order = list(range(x.ndim))
    if order:
        order[i], order[j] = j, i
    return permute_dims(x, order)


@core("moveaxis")
def moveaxis_parts(x: Tensor, source: int, destination: int) -> Any:
    """Move one axis, and keep the order of the others."""
    return permute_dims(x, moved_order(x.ndim, [source], [destination]))


@core("zeros")
def zeros_parts(
    size: Sequence[Any], *, dtype: DType | None = None, device: Device | None = None
) -> Any:
    """Fill with zero."""
    return full(size, 0, dtype=dtype or FLOAT32, device=device)


@core("ones")
def ones_parts(
    size: Sequence[Any], *, dtype: DType | None = None, device: Device | None = None
) -> Any:
    """Fill with one."""
    return full(size, 1, dtype=dtype or FLOAT32, device=device)


@core("zeros_like")
def zeros_like_parts(x: Tensor, *, dtype: DType | None = None, device: Device | None = None) -> Any:
    """Fill with zero."""
    return full_like(x, 0, dtype=dtype, device=device)


@core("ones_like")
def ones_like_parts(x: Tensor, *, dtype: DType | None = None, device: Device | None = None) -> Any:
    """Fill with one."""
    return full_like(x, 1, dtype=dtype, device=device)
