"""Questions about keys that a builder may ask of tensors and operators (S79, S88)."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.operator import OperatorBase, OpOverload
from polyop.dispatch.parts import PARTS
from polyop.dispatch.registry import as_operator
from polyop.dispatch.resolve import tensor_keys
from polyop.dispatch.table import resolve_key as resolve
from polyop.errors import UsageTypeError


def keys_of(t: Any) -> DispatchKeySet:
    """Give the keys that a tensor adds to a call (S79).

    Args:
        t: a tensor of any kind and shape.

    Raises:
        UsageTypeError: it is no tensor.

    Example:
        >>> import polyop
        >>> keys_of(polyop.zeros(2))
        DispatchKeySet(AutocastCPU, AutogradCPU, ADInplaceOrView, CPU)
    """
    if not isinstance(t, PARTS.Tensor):
        raise UsageTypeError(
            "only tensors have dispatch keys",
            seen=f"{t!r:.80} ({type(t).__name__})",
            fix="give a polyop.Tensor, such as polyop.from_numpy(array)",
        )
    return tensor_keys(t.keys)


def resolve_key(op: Any, key: DispatchKey | str) -> DispatchKey:
    """Give the key whose kernel acts at `key`: itself or an alias key (S88).

    Args:
        op: an operator in any form, or a higher-order operator.
        key: a run-time key or `Undefined`.

    Raises:
        AmbiguousKernelError: two kernels claim the key.
        MissingKernelError: no kernel and no fallback serves it.
        OperatorGoneError: the operator was removed.
    """
    found = op if isinstance(op, OperatorBase) else as_operator(op)
    if isinstance(found, OpOverload) and not found.alive:
        found.gone()
    return resolve(found, key)
