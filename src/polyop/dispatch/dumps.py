"""What an operator's registrations and table say, as text; and whether they agree (S105)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from polyop.dispatch.keys import RUNTIME_KEYS, DispatchKey
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS, as_operator
from polyop.dispatch.table import Entry, Kernel, Place, Places, compute_entry, compute_table, where
from polyop.errors import RegistrationError


def dispatch_dump(op: Any) -> str:
    """List an operator's registrations with file and line, the acting one of each place first."""
    found = as_operator(op)
    return dump(found.name(), found.places)


def dispatch_dump_table(op: Any) -> str:
    """List all keys of an operator's table, each with its reason and its kernel's place."""
    found = as_operator(op)
    return dump_table(found.name(), found.kernels())


def dispatch_check_invariants(op: Any = None) -> None:
    """Compute tables anew and compare; of all operators, or of one (S105).

    Raises:
        RegistrationError: a table that was kept is not what the registrations give.
    """
    ops = [d.op for d in list(DEFINITIONS.values())] if op is None else [as_operator(op)]
    with LOCK:
        for one in ops:
            _check_table(one, (DispatchKey.Undefined, *RUNTIME_KEYS))


def _check_table(op: OpOverload, keys: Iterable[DispatchKey]) -> None:
    kernels: dict[DispatchKey, Kernel] = op.kernels()  # type: ignore[assignment]
    wrong = [k for k in keys if op.table[k] != compute_entry(op.name(), kernels, k)]
    if wrong:
        raise RegistrationError(
            f"the table of {op.name()} is stale", op=op._schema, seen=", ".join(map(str, wrong))
        )


def dump(op_name: str, registrations: Places | Mapping[Any, Kernel]) -> str:
    """List the registrations of an operator by place, the acting one first."""
    items: Iterable[tuple[Place, Kernel]] = registrations.items()
    stacks: dict[Place, list[Kernel]] = {}
    for place, kernel in items:
        stacks.setdefault(place, []).insert(0, kernel)
    lines = [
        f"{place}: {where(kernel)}{_remark(kernel, overridden=i > 0)}"
        for place in sorted(stacks, key=lambda p: (isinstance(p, str), p))  # keys first
        for i, kernel in enumerate(stacks[place])
    ]
    return "\n".join([op_name, *lines])


def _remark(kernel: Kernel, *, overridden: bool) -> str:
    return " [fallthrough]" * kernel.fallthrough + " [overridden]" * overridden


def dump_table(op_name: str, kernels: Mapping[DispatchKey, Kernel]) -> str:
    """List all keys of an operator's table, each with the reason and the kernel's file and line."""
    lines = [_table_line(k, entry) for k, entry in compute_table(kernels).items()]
    return "\n".join([op_name, *lines])


def _table_line(key: DispatchKey, entry: Entry) -> str:
    by = f" of {entry.key}" if entry.key is not key else ""
    place = f" {where(entry.kernel)}" if entry.kernel else ""
    return f"{key}: {entry.reason.value}{by}{place}"
