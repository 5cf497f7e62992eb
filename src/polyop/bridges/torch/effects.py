"""Operators with an effect: PyTorch's compiler neither drops, merges nor moves their calls.

Nor does it merge equal calls of an operator that draws random numbers, which it takes for one call
where a gradient is asked for, whatever the operator's tags say.

PyTorch lets only those who define an operator with its own decorator say that there is an effect;
for others the way is not public. So it is looked for, and tried out: a node of the operator must
count as impure afterwards. Where it does not, the operator is refused in compiled regions.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch

from polyop.bridges.torch.schema import name_of
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.errors import CaptureError
from polyop.lazy import load
from polyop.objects.effects import effect_of_target

_library: Any = torch.library.Library
#: Of each operator for which something was said: whether it has an effect, and what keeps it said.
_SAID: WeakKeyDictionary[OpOverload, tuple[bool, Any]] = WeakKeyDictionary()
#: The random operators whose calls PyTorch does not merge.
_APART: WeakSet[OpOverload] = WeakSet()
#: Where PyTorch merges equal calls: names that it does not promise.
_MERGING = "torch._functorch.compile_utils"


def say_effect(op: OpOverload) -> None:
    """Tell PyTorch whether an operator has an effect, before it takes the operator into a graph.

    Raises:
        CaptureError: it has one, and PyTorch takes none.
    """
    wanted = effect_of_target(op) is not None
    if wanted == _SAID.get(op, (False, None))[0]:
        return
    with LOCK:
        library = _declared(op, wanted=wanted)
        _SAID[op] = wanted, library
    if wanted and not _counts(op):
        del _SAID[op]
        raise CaptureError(
            f"{op.name()} has an effect, and this version of PyTorch takes none: its compiler "
            "might drop, merge or move the calls",
            op=op._schema,
            seen=f"torch {torch.__version__}",
            source=op.rule_source("effect"),
            fix="call it outside of compiled regions: torch.compiler.disable(op)",
        )


def keep_apart(op: OpOverload) -> None:
    """Let equal calls of a random operator be as many in compiled code.

    Raises:
        CaptureError: PyTorch merges them all the same.
    """
    if op in _APART:
        return
    packet = _target(op).overloadpacket
    try:
        known, merged = load(f"{_MERGING}:rand_ops"), load(f"{_MERGING}:fx_graph_cse")
        if packet not in known:
            known.append(packet)
        graph = torch.fx.Graph()
        graph.output([graph.call_function(_target(op)) for _ in range(2)])
        apart = len(merged(graph).nodes) == len(graph.nodes)
    except (AttributeError, ImportError, TypeError):
        apart = False
    if not apart:
        raise CaptureError(
            f"{op.name()} draws random numbers, and this version of PyTorch would merge its calls",
            op=op._schema,
            seen=f"torch {torch.__version__}",
            source=op.source,
            fix="call it outside of compiled regions: torch.compiler.disable(op)",
        )
    _APART.add(op)


def _declared(op: OpOverload, *, wanted: bool) -> Any:
    library = _library(op.namespace, "FRAGMENT")
    declare = getattr(library, "_register_effectful_op", None)
    kinds = getattr(torch.library, "EffectType", None)
    ordered = getattr(kinds, "ORDERED", None)
    if declare is not None and ordered is not None:
        declare(f"{op.namespace}::{name_of(op)}", ordered if wanted else None)
    return library


def _counts(op: OpOverload) -> bool:
    """Tell whether a node of an operator is one that no pass removes."""
    return bool(torch.fx.Graph().call_function(_target(op)).is_impure())


def _target(op: OpOverload) -> Any:
    short, _, overload = name_of(op).partition(".")
    packet = getattr(getattr(torch.ops, op.namespace), short)
    return getattr(packet, overload or "default")
