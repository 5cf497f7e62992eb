"""The loop that vmap must equal, written with NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from polyop import tree
from polyop.tensor.tensor import Tensor, of_array


def looped(fn: Callable[..., Any], in_dims: Sequence[Any], *args: Any) -> Any:
    """Call `fn` for each sample, and stack the results along axis 0, as arrays."""
    size = next(a.shape[d] for a, d in zip(args, in_dims, strict=True) if isinstance(d, int))
    outs = []
    for i in range(size):
        given = [a if d is None else pick(a, d, i) for a, d in zip(args, in_dims, strict=True)]
        outs.append(arrays(fn(*given)))
    return tree.map_leaves(lambda *xs: np.stack(xs), *outs)


def pick(a: Tensor, d: int, i: int) -> Tensor:
    """Give a copy of one sample."""
    return of_array(np.asarray(np.take(a.numpy(), i, axis=d)))


def arrays(value: Any) -> Any:
    """Give a tree's tensors as arrays."""
    return tree.map_leaves(
        lambda x: np.array(x.numpy(force=True)) if isinstance(x, Tensor) else x, value
    )


def patterns(n: int) -> list[tuple[int | None, ...]]:
    """Give all ways of mapping `n` tensors over axis 0, axis -1, or not at all."""
    return [p for p in product((0, -1, None), repeat=n) if any(d is not None for d in p)]


def put_batch(sample: np.ndarray[Any, Any], dim: int | None, size: int, seed: int) -> Tensor:
    """Give a tensor whose axis `dim` holds `size` variations of a sample."""
    if dim is None:
        return of_array(sample.copy())
    moves = np.random.default_rng(seed).permutation(sample.size)
    rows = [np.roll(sample.reshape(-1)[moves], i).reshape(sample.shape) for i in range(size)]
    return of_array(np.stack(rows, axis=dim))
