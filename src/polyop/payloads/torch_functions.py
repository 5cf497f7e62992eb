"""What PyTorch's functions do not do as NumPy's, by the names of the Array API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

from polyop.payloads.library import Array


def torch_functions(torch: Any) -> dict[str, Callable[..., Any]]:
    """Give PyTorch's own by name."""
    found: dict[str, Callable[..., Any]] = {
        "add": add, "subtract": subtract, "take_along_axis": take_along_axis,
        "searchsorted": searchsorted, "broadcast_to": broadcast_to, "concat": concat,
    }  # fmt: skip
    found = {name: partial(fn, torch) for name, fn in found.items()}
    # The compatible `sign` divides zero by zero on the way, which gradients remember.
    return {"complex": torch.complex, "complex_sign": torch.sgn, **found}


def add(torch: Any, a: Array, b: Array) -> Array:
    """Add; complex numbers are scaled by one in PyTorch, so that infinity becomes NaN."""
    if not a.dtype.is_complex:
        return torch.add(a, b)
    return torch.complex(a.real + b.real, a.imag + b.imag)


def subtract(torch: Any, a: Array, b: Array) -> Array:
    """Subtract, as `add` adds."""
    if not a.dtype.is_complex:
        return torch.sub(a, b)
    return torch.complex(a.real - b.real, a.imag - b.imag)


def take_along_axis(torch: Any, x: Array, indices: Array, axis: int) -> Array:
    """Choose along an axis; `take_along_dim` takes what is out of range modulo the size."""
    return torch.gather(x, axis, indices)


def broadcast_to(torch: Any, x: Array, shape: tuple[Any, ...]) -> Array:
    """Repeat to a shape; of a batch of gradients PyTorch has no function of this name."""
    return x.expand(shape)


def concat(torch: Any, arrays: list[Array], axis: int) -> Array:
    """Join along an axis; of batches of gradients PyTorch has no function of this name."""
    return torch.cat(arrays, axis)


def searchsorted(torch: Any, row: Array, x: Array, side: str) -> Array:
    """Find where elements belong; PyTorch's search does not know that NaN stands last."""
    if not row.dtype.is_floating_point:
        return torch.searchsorted(row, x, side=side)
    absent = torch.isnan(row)
    numbers = (~absent).sum()
    found = torch.searchsorted(row.masked_fill(absent, inf), x, side=side)
    last = numbers if side == "left" else row.shape[0]
    return torch.where(torch.isnan(x), last, torch.minimum(found, numbers))
