"""Tables of decompositions: for an operator, a function that computes the same with others (S199).

A table is an ordinary mutable mapping, so whoever lowers a program takes one,
drops what the backend can do itself, and hands it to `make_fx`. Its keys are
overloads; a packet or a name stands for one in every place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from types import FunctionType
from typing import Any, TypeAlias

from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload, OpOverloadPacket
from polyop.dispatch.registry import as_operator, put_rule
from polyop.dispatch.table import Kernel
from polyop.errors import DuplicateRegistrationError, UsageTypeError
from polyop.lazy import load
from polyop.source import source_of

Fn: TypeAlias = Callable[..., Any]
Given: TypeAlias = Mapping[Any, Fn] | Iterable[tuple[Any, Fn]]


class DecompTable(MutableMapping[Any, Fn]):
    """Decompositions by overload.

    Args:
        given: a mapping, or pairs, to begin with.

    Example:
        >>> from polyop.library import core_decompositions
        >>> table = core_decompositions()
        >>> del table["core::softmax"]
        >>> "core::softmax" in table, "core::log_softmax" in table
        (False, True)
    """

    def __init__(self, given: Given = ()) -> None:
        self._found: dict[OpOverload, Fn] = {}
        self.update(given)

    def __getitem__(self, op: Any) -> Fn:
        return self._found[_overload(op)]

    def __setitem__(self, op: Any, fn: Fn) -> None:
        if not callable(fn):
            raise UsageTypeError("a decomposition is a function", op=op, seen=f"{fn!r:.80}")
        self._found[_overload(op)] = fn

    def __delitem__(self, op: Any) -> None:
        del self._found[_overload(op)]

    def __contains__(self, op: object) -> bool:
        return _overload(op) in self._found

    def __iter__(self) -> Iterator[OpOverload]:
        return iter(list(self._found))  # a copy: other threads register

    def __len__(self) -> int:
        return len(self._found)

    def copy(self) -> DecompTable:
        """Give another table with the same decompositions."""
        return DecompTable(self._found.copy())

    def __repr__(self) -> str:
        return f"DecompTable({', '.join(op.name() for op in self)})"


#: What `register_decomposition` fills by default, the built-in ones included.
REGISTRY = DecompTable()


def _overload(op: Any) -> OpOverload:
    if isinstance(op, OpOverload):
        return op  # also one that is gone: a table may still be cleared of it
    return as_operator(_behind(op))


def _behind(op: Any) -> Any:
    """Give the operator behind a built-in function, or what was given."""
    return getattr(op, "op", op) if isinstance(op, FunctionType) else op


def overloads_of(op: Any) -> list[OpOverload]:
    """Give the overloads that an operator, packet, name or list of these stands for.

    Raises:
        UsageTypeError: it is none of these.
        OperatorNotFoundError: no such name.
    """
    if isinstance(op, (list, tuple, set, frozenset)):
        return [found for one in op for found in overloads_of(one)]
    if isinstance(op, OpOverloadPacket) and op.op_overloads():
        return op.op_overloads()
    return [as_operator(_behind(op))]


def register_decomposition(
    op: Any, registry: MutableMapping[Any, Fn] | None = None
) -> Callable[[Fn], Fn]:
    """Register a function that computes an operator with other operators; decorates it.

    Args:
        op: the operator, in any form, or a list of operators; a packet means all its overloads.
        registry: the table to fill; the one of `get_decompositions` if not given. There it also
            gives an author's operator its gradient and its batches, unless rules give them.

    Raises:
        UsageTypeError: `op` is no operator, or what is decorated no function.
        DuplicateRegistrationError: one of them has a decomposition in this table.
    """
    found = overloads_of(op)
    table = _registry() if registry is None else registry

    def register(fn: Fn) -> Fn:
        if not callable(fn):
            raise UsageTypeError(
                "a decomposition is a function", op=found[0]._schema, seen=f"{fn!r:.80}"
            )
        with LOCK:
            _refuse_second(found, table, fn)
            table.update(dict.fromkeys(found, fn))
            if registry is None:
                _file(found, fn)
        return fn

    return register


def _file(ops: Iterable[OpOverload], fn: Fn) -> None:
    """Let gradients and batches of authors' operators be derived from it, where none is given."""
    for op in ops:
        if not op.is_builtin:
            put_rule(op, "decomposition", Kernel(fn, source_of(fn), op.places))


def _refuse_second(ops: Iterable[OpOverload], table: Mapping[Any, Fn], fn: Fn) -> None:
    for op in ops:
        if op in table and not _read_again(table[op], fn):
            raise DuplicateRegistrationError(
                f"{op.name()} has a decomposition in this table",
                op=op._schema,
                declared=f"the one at {source_of(table[op])}",
                seen=f"another at {source_of(fn)}",
                source=source_of(table[op]),
                fix="delete it from the table first, or give a table of your own: registry=",
            )


def get_decompositions(ops: Iterable[Any]) -> DecompTable:
    """Give the registered decompositions of some operators; those without one are left out.

    Args:
        ops: operators in any form; a packet means all its overloads.

    Raises:
        UsageTypeError: `ops` are no operators.
    """
    if not isinstance(ops, Iterable) or isinstance(ops, (str, OpOverloadPacket)):
        raise UsageTypeError("get_decompositions takes a list of operators", seen=repr(ops))
    table = _registry()
    return DecompTable({op: table[op] for op in overloads_of(list(ops)) if op in table})


def _read_again(old: Fn, new: Fn) -> bool:
    """Tell whether a function comes of the same lines, read a second time (a reloaded module)."""
    a, b = getattr(old, "__code__", None), getattr(new, "__code__", None)
    return a is not None and a is not b and a == b


def _registry() -> DecompTable:
    """Give the table of all, with the built-in decompositions in it, without removed operators."""
    load("polyop.ops.decompositions")
    for op in REGISTRY:
        if not op.alive:
            REGISTRY.pop(op, None)
    return REGISTRY
