"""Predicates of control flow: a bool, or a tensor with one element."""

from __future__ import annotations

from typing import Any

from polyop.hop.forms import breach, describe
from polyop.symbolic import SymBool
from polyop.tensor.tensor import Tensor


def predicate(op: Any, pred: Any, name: str = "pred", fn: Any = None) -> None:
    """Check a predicate.

    Raises:
        SubgraphError: it is no bool, and no Tensor with one element.
    """
    if isinstance(pred, (bool, SymBool)):
        return
    if isinstance(pred, Tensor) and all(n == 1 for n in pred.shape):
        return
    breach(
        f"{name} of {op} is a bool, or a Tensor with one element", op, fn, argument=name,
        seen=describe(pred), fix="reduce it first: .all() or .any()",
    )  # fmt: skip


def truth(pred: Any) -> bool:
    """Look at a predicate."""
    return bool(pred)
