"""Functions that get as operands what they closed over: a trace, gradients and batches see it.

A function is made anew with other cells: its code stays, and reads the given
tensors by the names of those that it closed over.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

from polyop import tree
from polyop.hop.closures import free_tensors, globals_of
from polyop.tensor.tensor import Tensor

Fn = Callable[..., Any]


class Lifted:
    """A function of its operands, and then of tensors that it closed over.

    Args:
        fn: the function.
        tensors: those that come behind the operands.
    """

    def __init__(self, fn: Fn, tensors: Sequence[Tensor]) -> None:
        self.__wrapped__ = fn
        self.tensors = tuple(tensors)

    def __call__(self, *given: Any) -> Any:
        """Call the function with the tensors that are given in the place of its own."""
        count = len(given) - len(self.tensors)
        pairs = zip(self.tensors, given[count:], strict=True)
        new = {id(old): value for old, value in pairs if value is not old}
        return with_tensors(self.__wrapped__, new)(*given[:count])


def free_of(fns: Sequence[Fn], bits: int) -> list[Tensor]:
    """List the tensors with some of these bits that functions close over, each once."""
    found = {id(t): t for fn in fns for _, t in free_tensors(fn) if t.keys & bits}
    return list(found.values())


def with_tensors(fn: Any, new: Mapping[int, Tensor]) -> Any:
    """Give a function that closes over other tensors.

    Args:
        fn: a function, with the functions and containers in its closure.
        new: what stands in the place of a tensor, by its id.
    """
    return _renewed(fn, new, {}) if new else fn


def _renewed(value: Any, new: Mapping[int, Tensor], made: dict[int, Any]) -> Any:
    if isinstance(value, Tensor):
        return new.get(id(value), value)
    if isinstance(value, functools.partial):
        parts = [_renewed(x, new, made) for x in (value.func, value.args, value.keywords)]
        return functools.partial(parts[0], *parts[1], **parts[2])
    if isinstance(value, FunctionType):
        return made[id(value)] if id(value) in made else _function(value, new, made)
    if isinstance(value, (list, tuple, dict)):
        return tree.map_leaves(lambda x: _renewed(x, new, made), value)
    return value


def _function(fn: FunctionType, new: Mapping[int, Tensor], made: dict[int, Any]) -> Any:
    if not any(id(t) in new for _, t in free_tensors(fn)):
        return fn
    scope = fn.__globals__
    changed = {n: new[id(scope.get(n))] for n in globals_of(fn.__code__) if id(scope.get(n)) in new}
    cells = tuple(CellType() for _ in fn.__closure__ or ())
    again = FunctionType(
        fn.__code__, {**scope, **changed} if changed else scope, fn.__name__, fn.__defaults__, cells
    )
    again.__kwdefaults__ = fn.__kwdefaults__
    made[id(fn)] = again  # first: a function may be in its own closure
    for cell, old in zip(cells, fn.__closure__ or (), strict=True):
        try:
            cell.cell_contents = _renewed(old.cell_contents, new, made)
        except ValueError:  # not assigned yet
            continue
    return again
