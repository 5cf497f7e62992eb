"""Operators whose results are as long as the data say: `argwhere` and the unique elements.

Their fake rules get `new_size(min, max)`, which makes a size that nobody knows
before the data are there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polyop.errors import ArgumentError
from polyop.ops.axes import count
from polyop.ops.define import ON_TENSORS, define
from polyop.ops.door import takes
from polyop.records import NamedTuple
from polyop.schema.tags import Tag
from polyop.tensor.meta import Meta, Size

Fn = Callable[..., Any]
Array = Any
INDEX = np.dtype(np.int64)
DYNAMIC = (Tag.dynamic_output_shape,)


def _new_size(x: Meta, new_size: Fn, least: int) -> Size:
    """Make a size of at most as many elements as `x` has."""
    n = count(x.shape, range(x.ndim))
    known = isinstance(n, int)
    found: Size = new_size(min(least, n) if known else 0, n if known else None)
    return found


def argwhere_kernel(x: Array) -> Array:
    """Give the index of each element that is not zero, one row each."""
    where = np.atleast_1d(x).nonzero()
    return np.stack(where, 1) if x.ndim else np.empty((len(where[0]), 0), INDEX)


def argwhere_fake(x: Meta, *, new_size: Fn) -> Meta:
    """Describe the indices."""
    return x.but(shape=(_new_size(x, new_size, 0), x.ndim), dtype=INDEX, strides=None)


argwhere = define("argwhere(Tensor x) -> Tensor", argwhere_kernel, fake=argwhere_fake, tags=DYNAMIC)


@takes("Tensor x")
def nonzero(x: Any) -> tuple[Any, ...]:
    """Give the indices of the elements that are not zero, one tensor for each axis.

    Raises:
        ArgumentError: there are no axes.
    """
    if not x.shape:
        raise ArgumentError(
            "nonzero gives indices for each axis, and there is none",
            op="core::nonzero",
            seen="shape ()",
            fix="write x != 0",
        )
    rows = argwhere(x)
    return tuple([ON_TENSORS["select"](rows, 1, i) for i in range(rows.shape[1])])


# -- unique elements ------------------------------------------------------------


class UniqueAll(NamedTuple):
    """The unique elements of a tensor, and all about them."""

    values: Any
    indices: Any
    inverse_indices: Any
    counts: Any


class UniqueCounts(NamedTuple):
    """The unique elements of a tensor, and how often each comes."""

    values: Any
    counts: Any


class UniqueInverse(NamedTuple):
    """The unique elements of a tensor, and which of them each element is."""

    values: Any
    inverse_indices: Any


def unique_all_kernel(x: Array) -> tuple[Array, ...]:
    """Give the unique elements in order, with first indices, inverse and counts."""
    values, indices, inverse, counts = np.unique(x, True, True, True, equal_nan=False)
    return values, indices, inverse.reshape(x.shape), counts


def unique_values_kernel(x: Array) -> Array:
    """Give the unique elements in order; each NaN counts as unique."""
    return np.unique(x, equal_nan=False)


def unique_counts_kernel(x: Array) -> tuple[Array, ...]:
    """Give the unique elements in order, and how often each comes."""
    return tuple(np.unique(x, return_counts=True, equal_nan=False))


def unique_inverse_kernel(x: Array) -> tuple[Array, ...]:
    """Give the unique elements in order, and which of them each element is."""
    values, inverse = np.unique(x, return_inverse=True, equal_nan=False)
    return values, inverse.reshape(x.shape)


def _unique(name: str, kernel: Fn, results: str) -> Fn:
    """Define an operator whose results are values, and indices called `results`."""
    names = results.split()

    def fake(x: Meta, *, new_size: Fn) -> Any:
        n = _new_size(x, new_size, 1)
        values = x.but(shape=(n,), strides=None)
        if not names:
            return values
        like = {"inverse_indices": x.shape}
        return values, *[x.but(shape=like.get(i, (n,)), dtype=INDEX, strides=None) for i in names]

    several = "".join([f", Tensor {i}" for i in names])
    returns = f"(Tensor values{several})" if names else "Tensor"
    return define(f"{name}(Tensor x) -> {returns}", kernel, fake=fake, tags=DYNAMIC)


unique_values = _unique("unique_values", unique_values_kernel, "")
_all = _unique("unique_all", unique_all_kernel, "indices inverse_indices counts")
_counts = _unique("unique_counts", unique_counts_kernel, "counts")
_inverse = _unique("unique_inverse", unique_inverse_kernel, "inverse_indices")


def unique_all(x: Any) -> UniqueAll:
    """Give the unique elements of `x` in order, with first indices, inverse and counts."""
    return UniqueAll(*_all(x))


def unique_counts(x: Any) -> UniqueCounts:
    """Give the unique elements of `x` in order, and how often each comes."""
    return UniqueCounts(*_counts(x))


def unique_inverse(x: Any) -> UniqueInverse:
    """Give the unique elements of `x` in order, and which of them each element is."""
    return UniqueInverse(*_inverse(x))
