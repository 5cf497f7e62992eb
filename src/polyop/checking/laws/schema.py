"""The law of the schema: nothing is written, shared or kept that it does not declare."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.checking.law import Case, law
from polyop.checking.sample import Array, Sample, array_of, leaves_named, owner_of
from polyop.dispatch.body import result_forms
from polyop.errors import AliasError, MutationError
from polyop.schema.tags import Tag
from polyop.tensor.storage import shares_memory
from polyop.tensor.tensor import Tensor


@law("test_schema", "An operator writes and shares what its schema declares, and nothing else.")
def schema_law(case: Case) -> str | None:
    """Try a call, bit for bit, and a second one beside it."""
    note = check_call(case, case.sample)
    check_memory_between_calls(case)
    return note


def check_call(case: Case, sample: Sample) -> str | None:
    """Call once, and look at every byte that the call could reach.

    Raises:
        MutationError: an undeclared write.
        AliasError: undeclared sharing.
        ReturnError: results that are not the declared ones.
    """
    given = sample.copy()
    before = snapshot(given)
    result = given.call(case.op)
    unseen = check_writes(case, given, before)
    check_sharing(case, given, result)
    return unseen


# -- writes -------------------------------------------------------------------

#: Each tensor's name and values, and the bytes of all memory around it.
Snapshot = tuple[list[tuple[str, Tensor, Array]], list[tuple[str, Array, bytes]]]


def snapshot(sample: Sample) -> Snapshot:
    """Keep the values of each tensor, and all memory that they are views of."""
    named = list(sample.named())
    values = [(name, t, array_of(t).copy()) for name, t in named]
    owners: dict[int, tuple[str, Array, bytes]] = {}
    for name, t in named:
        owner = owner_of(array_of(t))
        owners.setdefault(id(owner), (name, owner, owner.tobytes("A")))
    return values, list(owners.values())


def check_writes(case: Case, sample: Sample, before: Snapshot) -> str | None:
    """Compare the memory with what it was; gives a note on declared writes that did not happen."""
    values, owners = before
    written, idle = sample.written(), []
    declared: list[Array] = []
    for name, t, old in values:
        changed = array_of(t).tobytes() != old.tobytes()
        if id(t) in written:
            declared.append(array_of(t))
            idle += [] if changed else [name]
    for name, t, old in values:
        now = array_of(t)
        shared = any(np.may_share_memory(now, d) for d in declared)
        if id(t) not in written and not shared and now.tobytes() != old.tobytes():
            _wrote(case, name, now, old)
    if not declared:
        for name, owner, old_bytes in owners:
            if owner.tobytes("A") != old_bytes:
                _wrote_around(case, name)
    return f"declared writes that this sample does not show: {', '.join(idle)}" if idle else None


def _wrote(case: Case, name: str, now: Array, old: Array) -> None:
    item = now.dtype.itemsize
    bits = np.frombuffer(now.tobytes(), np.uint8) != np.frombuffer(old.tobytes(), np.uint8)
    flat = int(np.argmax(bits)) // item
    place = [int(i) for i in np.unravel_index(flat, now.shape)]
    was, became = old.reshape(-1)[flat], now.reshape(-1)[flat]
    count = len(np.unique(np.flatnonzero(bits) // item))
    raise MutationError(
        f"{case.name} writes its argument {name!r}, which its schema does not declare",
        op=case.op._schema,
        argument=name,
        declared="not written",
        seen=f"element {place} was {was!r} and became {became!r} ({count} of {now.size} changed)",
        source=case.kernel_source,
        fix=f"work on a copy ({name}.clone()), or declare the write: mutates_args=({root(name)!r},)",
    )


def _wrote_around(case: Case, name: str) -> None:
    raise MutationError(
        f"{case.name} writes memory beside its argument {name!r}, which is a view of it",
        op=case.op._schema,
        argument=name,
        declared="not written",
        seen="bytes outside the argument's own elements changed",
        source=case.kernel_source,
        fix="write only to what the call makes; never through the base of an argument",
    )


def root(name: str) -> str:
    """Give the argument's name, without the way to a leaf in it."""
    return name.partition("[")[0].partition(".")[0]


# -- sharing ------------------------------------------------------------------


def check_sharing(case: Case, sample: Sample, result: Any) -> None:
    """Compare who shares memory with what the schema declares."""
    forms = result_forms(case.op._schema)
    results = [
        (name, t, _number(name))
        for name, t in leaves_named(result, len(forms))
        if isinstance(t, Tensor)
    ]
    for i, (name, t, number) in enumerate(results):
        kind, position = forms[number]
        for other_name, other in sample.named():
            allowed = kind in {"argument", "view", "views"} and other in _tensors(sample, position)
            if not allowed and shares_memory(t, other) and not _shared_inputs(sample, position, other):
                _shared(case, name, f"argument {other_name!r}")
        if kind in {"new", "list"}:
            for other_name, other, _ in results[:i]:
                if shares_memory(t, other):
                    _shared(case, name, other_name)
    _check_declared_views(case, sample, results)


def _number(name: str) -> int:
    digits = name.removeprefix("result ").partition("[")[0]
    return int(digits) if digits.isdigit() else 0


def _tensors(sample: Sample, position: int) -> list[Tensor]:
    if position < 0:
        return []
    return [t for t in Sample.tensors(_only(sample, position)) if isinstance(t, Tensor)]


class _Identities(list[Tensor]):
    """Tensors found by identity, because `==` of tensors is elementwise."""

    def __contains__(self, value: object) -> bool:
        return any(t is value for t in self)


def _only(sample: Sample, position: int) -> Sample:
    values = tuple(v if i == position else None for i, v in enumerate(sample.values))
    return Sample(sample.schema, values)
