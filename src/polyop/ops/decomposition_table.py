"""The table of built-in decompositions, and how one is put into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyop.dispatch.decompositions import DecompTable, register_decomposition

Fn = Callable[..., Any]
CORE = DecompTable()


def core(*names: str) -> Callable[[Fn], Fn]:
    """Register the decomposition of built-in operators."""
    return register_decomposition([f"core::{name}" for name in names], CORE)


def both(name: str) -> tuple[str, str, str]:
    """Name the overloads on two tensors, and on a tensor and a number."""
    return name, f"{name}.Scalar", f"{name}.ScalarTensor"
