"""Masked arrays, over which no tensor is: what they hide would come to light."""

from __future__ import annotations

from typing import Any

from polyop.errors import ArgumentError


def check_unmasked(array: Any, fill: str = "x.filled(value)") -> None:
    """Refuse a masked array.

    Args:
        array: of NumPy, or of a kind of its own.
        fill: how one is filled.

    Raises:
        ArgumentError: it is one.
    """
    if hasattr(array, "mask"):
        raise ArgumentError(
            "a tensor cannot be over a masked array: what the mask hides would come to light",
            declared="an array all of whose elements count",
            seen=type(array).__name__,
            fix=f"fill it first: {fill}",
        )
