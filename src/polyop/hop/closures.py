"""The tensors that a function uses and does not get: of closures, and of its module (S178)."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CellType, CodeType, FunctionType
from typing import Any

from polyop import tree
from polyop.errors import SubgraphError
from polyop.source import source_of
from polyop.tensor.tensor import Tensor


@dataclass
class _Seen:
    """What a walk through closures has met."""

    functions: set[int] = field(default_factory=set)
    tensors: list[tuple[str, Tensor]] = field(default_factory=list)


def free_tensors(fn: Any) -> list[tuple[str, Tensor]]:
    """List the tensors that a function uses without getting them, by name.

    Looked at are its closure, with the functions in it, and the globals that it
    names; attributes of objects are not.
    """
    seen = _Seen()
    _walk("", fn, seen)
    return seen.tensors


def _walk(name: str, value: Any, seen: _Seen) -> None:
    if id(value) in seen.functions:
        return
    if isinstance(value, Tensor):
        seen.tensors.append((name, value))
    elif isinstance(value, functools.partial):
        _walk(name, [value.func, value.args, value.keywords], seen)
    elif isinstance(value, FunctionType):
        seen.functions.add(id(value))
        for free in globals_of(value.__code__):
            _walk_global(free, value.__globals__.get(free), seen)
        cells: tuple[CellType, ...] = value.__closure__ or ()
        for free, cell in zip(value.__code__.co_freevars, cells, strict=True):
            _walk(free, content_of(cell), seen)
    elif isinstance(value, (list, tuple, dict)):
        for leaf in tree.leaves(value):
            _walk(name, leaf, seen)


def _walk_global(name: str, value: Any, seen: _Seen) -> None:
    # Functions of modules are not followed: what is behind them has no end.
    if isinstance(value, Tensor):
        seen.tensors.append((name, value))


@functools.lru_cache(maxsize=4096)
def globals_of(code: CodeType) -> tuple[str, ...]:
    """Name the globals that a function reads, and those that functions inside it read."""
    return tuple(dict.fromkeys(_globals(code)))


def _globals(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL":
            yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals(inner)


def content_of(cell: CellType) -> Any:
    """Give what a cell holds, None if that is nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def check_closed(op: Any, fn: Any) -> None:
    """Check that a function closes over no tensor (S178).

    Raises:
        SubgraphError: it does, or it is no function.
    """
    if not callable(fn):
        raise SubgraphError(
            f"{op} takes a function or a GraphModule", op=op, seen=f"{fn!r:.60}",
            fix="pass the function first, then its operands",
        )  # fmt: skip
    for name, tensor in free_tensors(fn):
        raise SubgraphError(
            f"the function of {op} uses the tensor {name!r}, which it does not get",
            op=op,
            argument=name,
            seen=f"shape {tuple(tensor.shape)}",
            source=source_of(fn),
            fix=f"make {name} a parameter of the function, and pass it as an operand",
        )
