"""The built-in functions by name: the module that they name as theirs, where pickle finds them."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.registry import find_operator


def __getattr__(name: str) -> Any:
    return find_operator(f"core::{name}").entry
