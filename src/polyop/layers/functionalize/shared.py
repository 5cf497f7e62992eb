"""A call that gets one memory twice, and writes it.

The functional twin copies each argument by itself, so that a write through one
would not be seen through the other. Such a call works on one copy of the
memory instead, of which its arguments are views (`auto_functionalized_v2`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from polyop import tree
from polyop.dispatch.context import PLAIN, run_under, word
from polyop.dispatch.namespaces import ops
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.results import tensors_in
from polyop.errors import MutationError
from polyop.layers.functionalize.apart import apart
from polyop.layers.functionalize.storage import (
    Chain,
    Functional,
    Own,
    Step,
    Storage,
    own_of,
)
from polyop.ops.inplace import INPLACE_TWINS
from polyop.ops.view_inverses import contiguous_copy
from polyop.ops.views import detach
from polyop.tensor.meta import element_strides
from polyop.tensor.tensor import Tensor, of_array


def is_shared(op: OpOverload, args: Sequence[Any]) -> bool:
    """Tell whether memory that a call writes is that of another argument too."""
    if op.name() in INPLACE_TWINS:  # computed as if all was read before the write
        return False
    found: dict[int, list[tuple[bool, Chain]]] = {}
    for argument, value in zip(op._schema.arguments, args, strict=True):
        for r in _records(value):
            found.setdefault(id(r.storage), []).append((argument.is_write, r.chain))
    return any(
        (writes or others) and not apart(a, b)
        for views in found.values()
        for (writes, a), (others, b) in combinations(views, 2)
    )


def written(op: OpOverload, args: Sequence[Any]) -> list[Storage]:
    """Give the memory that a call writes, each once."""
    return list({id(r.storage): r.storage for r in _written_records(op, args)}.values())


def _written_records(op: OpOverload, args: Sequence[Any]) -> list[Functional]:
    pairs = zip(op._schema.arguments, args, strict=True)
    return [r for argument, value in pairs if argument.is_write for r in _records(value)]


def _records(value: Any) -> Iterator[Functional]:
    for t in tensors_in(value):
        if t.payload.__class__ is Functional:
            yield t.payload


def write_shared(op: OpOverload, args: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Call on copies of the written memory, and give the results.

    Args:
        op: the operator.
        args: functional tensors, and values.
        values: what they are now.

    Raises:
        MutationError: a view is not known as a part of its base.
    """
    storages = written(op, args)
    bases = [ordered(s.value) for s in storages]
    number = {id(s): i for i, s in enumerate(storages)}
    given: dict[str, Any] = {"_all_bases": bases}
    for argument, arg, value in zip(op._schema.arguments, args, values, strict=True):
        name = argument.name
        if not argument.is_write and not any(id(r.storage) in number for r in _records(arg)):
            given[name] = value
        elif arg is None or isinstance(arg, Tensor):
            given |= _spelled(op, f"_{name}", arg, number, bases)
        elif not _is_list(arg) and not argument.is_write:
            given |= _within(op, name, (arg, value), number, bases)
        else:
            _require_list(op, name, arg)
            given[f"_{name}_length"] = len(arg)
            for i, item in enumerate(arg):
                given |= _spelled(op, f"_{name}_{i}", item, number, bases)
    done = ops.higher_order.auto_functionalized_v2(op, **given)
    chains = [(r.storage, r.chain) for r in _written_records(op, args)]
    for storage, new in zip(storages, done[-len(bases) :], strict=False):
        _replace(storage, new, [chain for s, chain in chains if s is storage])
    return list(done[: -len(bases)])


def _is_list(arg: Any) -> bool:
    return isinstance(arg, (list, tuple)) and all(t is None or isinstance(t, Tensor) for t in arg)


def _require_list(op: OpOverload, name: str, arg: Any) -> None:
    """Refuse a written container that holds more than tensors, which have no twin in such a call.

    Raises:
        MutationError: an item is no tensor, or `arg` is no list of them.
    """
    if not _is_list(arg):
        raise MutationError(
            f"{op.name()} writes memory that tensors deeper inside {name!r} share",
            op=op._schema,
            argument=name,
            declared="memory that two arguments write is in tensors, and lists of them, alone",
            seen=type(arg).__name__,
            source=op.source,
            fix="give .clone() of the tensors that share memory",
        )


def _replace(storage: Storage, new: Tensor, chains: Sequence[Chain]) -> None:
    """Give a base the value that was written through some views of it."""
    owns = [own_of(chain) for chain in chains]
    for own, chain in zip(owns, chains, strict=True):
        if own is not None and word().grad:
            own.value, own.recorded = _up_to(own, chain, new), storage.generation + 1
    if None in owns:
        storage.replace(new)
    else:
        storage.change(detach(new), tangent=True)


def _up_to(own: Own, chain: Chain, base: Tensor) -> Tensor:
    """Follow a chain to where a history begins, with that of the base."""
    for step in chain:
        if not isinstance(step, Step) or step.own is None:
            base = step.take(base)
        elif step.own is own:
            break
    return base


def ordered(base: Tensor) -> Tensor:
    """Give a base whose elements lie in order."""
    return base if base.is_contiguous() else contiguous_copy(base)


def _spelled(
    op: OpOverload, prefix: str, t: Any, number: dict[int, int], bases: list[Tensor]
) -> dict[str, Any]:
    """Say how an argument is made of its base."""
    if t is None:
        return {f"{prefix}_base_index": None}
    record: Functional = t.payload
    index = number.get(id(record.storage))
    if index is None:  # beside such an argument, in a list
        index = len(bases)
        number[id(record.storage)] = index
        bases.append(ordered(record.storage.value))
    found = {f"{prefix}_base_index": index}
    if not record.chain:
        return found
    size, stride, offset = _place(op, record, bases[index])
    return found | {
        f"{prefix}_size": size,
        f"{prefix}_stride": stride,
        f"{prefix}_storage_offset": offset,
    }


def _within(
    op: OpOverload, name: str, given: Any, number: dict[int, int], bases: list[Tensor]
) -> dict[str, Any]:
    """Say which leaves of a tree are made of bases, and how."""
    arg, value = given
    found: dict[str, Any] = {}
    leaves, form = tree.flatten(value)
    for i, leaf in enumerate(tree.leaves(arg)):
        if any(id(r.storage) in number for r in _records(leaf)):
            found |= _spelled(op, f"_{name}_{i}", leaf, number, bases)
            leaves[i] = None
    numbers = tree.unflatten(form, range(len(leaves)))
    return found | {f"_{name}_leaves": leaves, f"_{name}_tree": numbers}


def _place(op: OpOverload, record: Functional, base: Tensor) -> tuple[list[int], list[int], int]:
    """Find the part of its base that a view is, by taking the view of numbers."""
    shape = [n for n in base.shape if type(n) is int]
    if len(shape) != len(base.shape):
        _refuse(op, f"symbolic sizes {tuple(base.shape)}")
    whole = np.empty(shape, "int8")  # never read, so it costs no memory
    part = run_under(PLAIN, _part, whole, record.chain)
    if part.size and not np.may_share_memory(part, whole):
        _refuse(op, f"a copy, made by {record.chain[-1].op}")
    offset = part.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    return list(part.shape), list(element_strides(part)), offset if part.size else 0


def _part(whole: np.ndarray[Any, Any], chain: Chain) -> Any:
    base = of_array(whole)
    for step in chain:
        base = step.take(base)
    return base.numpy()


def _refuse(op: OpOverload, seen: str) -> None:
    raise MutationError(
        f"{op.name()} writes memory that two of its arguments share, in a way that cannot be "
        "functionalized",
        op=op._schema,
        seen=seen,
        source=op.source,
        fix="give one of them as a copy (.clone())",
    )
