"""`SchemaCheckMode`: every call of a block, held against its schema (S167).

A kernel's own results are checked when it returns them; this mode looks at
whole calls, from outside: compositions, other modes, and writes, which are
seen only by comparing all memory before and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyop.dispatch.body import carried_by, result_forms
from polyop.dispatch.modes import DispatchMode
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.results import tensors_in
from polyop.errors import AliasError, MutationError
from polyop.schema.model import MISSING
from polyop.tensor.storage import shares_memory, version_of
from polyop.tensor.tensor import Tensor


class SchemaCheckMode(DispatchMode):
    """Checks the writes and the aliases of every call of its block.

    Attributes:
        checked: how many calls were.

    Raises:
        MutationError: in a call, for a write that the schema does not declare.
        AliasError: in a call, for memory shared where the schema declares none.

    Example:
        >>> import polyop
        >>> with SchemaCheckMode() as mode:
        ...     _ = polyop.ones(3).add_(1)
        >>> mode.checked
        2
    """

    #: Its place on the pre-dispatch stack, which it has to itself.
    checks_schemas = True

    def __init__(self) -> None:
        self.checked = 0

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call, and look at what it did."""
        given = kwargs or {}
        if not isinstance(op, OpOverload):
            return op(*args, **given)
        held = list(_held(op, args, given))
        result = op(*args, **given)
        _check_writes(op, held)
        _check_aliases(op, held, result)
        self.checked += 1
        return result


class Held(NamedTuple):
    """A tensor of a call, and what it was before.

    Attributes:
        position: of its argument.
        tensor: itself.
        before: its elements, if it has any.
        version: how often its storage had been written.
    """

    position: int
    tensor: Tensor
    before: np.ndarray[Any, Any] | None
    version: int


def _held(op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Held]:
    for i, argument in enumerate(op._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name, MISSING)
        for t in tensors_in(value) if value is not MISSING else ():
            payload = t.payload
            copy = payload.copy() if payload.__class__ is np.ndarray else None
            yield Held(i, t, copy, version_of(t))


def _check_writes(op: OpOverload, held: Sequence[Held]) -> None:
    arguments = op._schema.arguments
    declared = [h.tensor for h in held if arguments[h.position].is_write]
    for one in held:
        if arguments[one.position].is_write or not _changed(one):
            continue
        if any(shares_memory(one.tensor, t) for t in declared):
            continue
        name = arguments[one.position].name
        raise MutationError(
            f"{op.name()} writes its argument {name!r}, which its schema does not declare",
            op=op._schema,
            argument=name,
            declared=arguments[one.position],
            seen=f"elements that changed, in a tensor of shape {tuple(one.tensor.shape)}",
            source=op.source,
            fix=f"work on a copy ({name}.clone()), or declare the write: mutates_args=({name!r},)",
        )


def _changed(one: Held) -> bool:
    if one.before is None:
        return version_of(one.tensor) != one.version
    now = one.tensor.payload
    if now.__class__ is not np.ndarray or now.shape != one.before.shape:
        return True
    return bool(now.tobytes() != one.before.tobytes())


def _check_aliases(op: OpOverload, held: Sequence[Held], result: Any) -> None:
    forms = result_forms(op._schema)
    values = [result] if len(forms) == 1 else list(result or ())
    fresh: list[tuple[int, Tensor]] = []
    for i, (value, form) in enumerate(zip(values, forms, strict=True)):
        places = carried_by(op._schema, i, form)
        allowed = [h.tensor for h in held if h.position in places]
        for t in tensors_in(value):
            if op._schema.returns[i].is_write and all(t is not a for a in allowed):
                names = " or ".join(repr(op._schema.arguments[j].name) for j in places)
                _refuse(op, i, f"is not its argument {names}", value)
            for other in held:
                if other.position not in places and shares_memory(t, other.tensor):
                    name = op._schema.arguments[other.position].name
                    if not any(shares_memory(a, other.tensor) for a in allowed):
                        _refuse(op, i, f"shares storage with argument {name!r}", t)
            if form[0] in {"new", "list"}:
                for j, seen in fresh:
                    if shares_memory(t, seen):
                        _refuse(op, i, f"shares storage with result {j}", t)
                fresh.append((i, t))


def _refuse(op: OpOverload, i: int, what: str, seen: Any) -> None:
    raise AliasError(
        f"result {i} of {op.name()} {what}",
        op=op._schema,
        declared=op._schema.returns[i],
        seen=f"a tensor of shape {tuple(seen.shape)}" if isinstance(seen, Tensor) else repr(seen),
        source=op.source,
        fix="return a copy (.clone()), or declare the alias in the schema: "
        "(Tensor(a) x) -> Tensor(a) for a view, Tensor(a!) for a returned input",
    )
