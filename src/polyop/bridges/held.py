"""Tensors over arrays that are never written: writes go through twins, views are taken again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyop import tree
from polyop.dispatch.body import result_forms
from polyop.dispatch.operator import OpOverload
from polyop.layers.payloads.authors import refuse_either
from polyop.layers.payloads.handlers import put
from polyop.payloads.held import Held, Taken
from polyop.tensor.storage import bump, share
from polyop.tensor.tensor import Tensor


def written(
    op: OpOverload, values: Sequence[Any], call: Callable[[OpOverload, Sequence[Any]], Any]
) -> Any:
    """Call the functional twin, and let each written tensor have its new value."""
    places = [i for i, a in enumerate(op._schema.arguments) if a.is_write]
    targets = [t for i in places for t in tree.leaves(values[i]) if isinstance(t, Tensor)]
    made = call(op.functional, values)
    n = len(op.functional._schema.returns)
    results = list(made) if n != 1 else [made]
    fresh = n - len(places)
    for t, new in zip(targets, tree.leaves(results[fresh:]), strict=True):
        bump(t)
        put(op, t, new.payload.array)
    rest = iter(results[:fresh])
    found = [
        values[i] if kind == "argument" else next(rest) for kind, i in result_forms(op._schema)
    ]
    return found[0] if len(found) == 1 else tuple(found) if found else None


def linked(op: OpOverload, values: Sequence[Any], made: Any) -> Any:
    """Tie declared views to their bases, from which they are taken again after a write."""
    forms = result_forms(op._schema)
    results = [made] if len(forms) == 1 else list(made)
    for (kind, i), result in zip(forms, results, strict=True):
        if kind == "either" and any(map(_is_held, tree.leaves(list(values)))):
            refuse_either(op)
        if kind == "view" and _is_held(values[i]):
            _tie(op, values, result, i, None)
        elif kind == "views" and _is_held(values[i]):
            for number, t in enumerate(result):
                _tie(op, values, t, i, number)
    return results[0] if len(results) == 1 else tuple(results)


def _tie(op: OpOverload, values: Sequence[Any], t: Tensor, i: int, number: int | None) -> None:
    base: Tensor = values[i]
    taken = Taken(base.payload, op, tuple(values), i, number)
    t.payload = base.payload.view(t.payload.array, None, taken)
    t.version = share(base)
    more = () if number is None else (number,)
    t.view_of = (base, op, (*values[:i], *values[i + 1 :], *more))


def _is_held(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.payload.__class__ is Held
