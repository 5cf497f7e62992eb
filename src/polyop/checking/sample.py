"""A sample: one list of arguments of an operator, in schema order.

Laws call the operator on copies. A copy keeps strides, the memory around a
view, and which arguments share memory, because those are what the laws look
for; the author's own tensors are read, and never written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyop import tree
from polyop.dispatch.bind import bind
from polyop.dispatch.operator import OpOverload
from polyop.errors import ArgumentError, UsageError
from polyop.schema.model import FunctionSchema
from polyop.tensor.tensor import Tensor, of_array

Array = np.ndarray[Any, Any]


def _nothing(sample: Sample) -> None:
    """Leave everything as it is."""


#: What is done before each call of a sample.
BEFORE: ContextVar[Callable[[Sample], None]] = ContextVar("before", default=_nothing)


@dataclass(frozen=True)
class Sample:
    """Every argument of one call, in schema order."""

    schema: FunctionSchema
    values: tuple[Any, ...]

    def call(self, op: Callable[..., Any]) -> Any:
        """Call an operator on these very values."""
        BEFORE.get()(self)
        n = len(self.schema.positional)
        names = [a.name for a in self.schema.keyword_only]
        return op(*self.values[:n], **dict(zip(names, self.values[n:], strict=True)))

    def map(self, fn: Callable[[Tensor], Any]) -> Sample:
        """Give the sample with each tensor replaced; one tensor stays one."""
        done: dict[int, Any] = {}

        def once(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if id(leaf) not in done:
                done[id(leaf)] = fn(leaf)
            return done[id(leaf)]

        return Sample(self.schema, tuple([_map(once, value) for value in self.values]))

    def copy(self, *, grad: bool = False) -> Sample:
        """Copy all tensors, with their memory; `grad` keeps what requires grad."""
        owners: dict[int, Array] = {}

        def copied(t: Tensor) -> Tensor:
            made = of_array(copy_array(array_of(t), owners))
            if grad and t.requires_grad:
                made.requires_grad_()
            return made

        return self.map(copied)

    def rebuilt(self, tensors: Iterable[Any]) -> Sample:
        """Give the sample with other tensors, in order."""
        rest = iter(tensors)

        def following(leaf: Any) -> Any:
            return next(rest) if isinstance(leaf, Tensor) else leaf

        return Sample(self.schema, tuple([_map(following, value) for value in self.values]))

    def replaced(self, position: int, value: Any) -> Sample:
        """Give the sample with one argument replaced."""
        values = list(self.values)
        values[position] = value
        return Sample(self.schema, tuple(values))

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Give each tensor with its name: `x`, `xs[1]`."""
        for argument, value in zip(self.schema.arguments, self.values, strict=True):
            yield from tensors_named(argument.name, value)

    def tensors(self) -> list[Tensor]:
        """Give all tensors, in order."""
        return [t for _, t in self.named()]

    def at(self, position: int) -> list[Tensor]:
        """Give the tensors in one argument."""
        return [t for _, t in tensors_named("", self.values[position])]

    def written(self) -> set[int]:
        """Give the identities of the tensors that the schema says are written."""
        pairs = zip(self.schema.arguments, self.values, strict=True)
        return {id(t) for a, value in pairs if a.is_write for _, t in tensors_named("", value)}


def _map(fn: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, Tensor):
        return fn(value)
    if value is None or isinstance(value, (bool, int, float, complex, str, np.dtype)):
        return value
    return tree.map_leaves(fn, value)


def tensors_named(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Give the tensors in a value, each with its name."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from tensors_named(f"{name}[{i}]", item)
    elif value is not None and not isinstance(value, (bool, int, float, complex, str)):
        for path, leaf in zip(tree.paths(value), tree.leaves(value), strict=True):
            if isinstance(leaf, Tensor):
                yield name + path, leaf


def leaves_named(value: Any, count: int) -> list[tuple[str, Any]]:
    """Give all leaves of a result, each with its name: `result 1[0]`."""
    results = list(value) if count > 1 else [value]
    found: list[tuple[str, Any]] = []
    for i, result in enumerate(results):
        found += _parts_named(f"result {i}" if count > 1 else "the result", result)
    return found


def _parts_named(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    names, parts = tree.children(value)
    if parts is None:
        yield name, value
        return
    for key, part in zip(names, parts, strict=True):
        word = f"[{key!r}]" if isinstance(value, (list, tuple, dict)) else f".{key}"
        yield from _parts_named(name + word, part)


def sample_of(op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sample:
    """Bind arguments to an operator's schema; bare arrays become tensors.

    Raises:
        UsageError: the arguments do not fit the schema.
    """

    def wrap(leaf: Any) -> Any:
        return of_array(leaf) if isinstance(leaf, np.ndarray) else leaf

    try:
        given = [_map(wrap, a) for a in args]
        values = bind(op, given, {k: _map(wrap, v) for k, v in kwargs.items()})
    except ArgumentError as error:
        raise UsageError(
            f"a sample does not fit: {error.problem}",
            op=error.op or op._schema,
            argument=error.argument,
            declared=error.declared,
            seen=error.seen,
            source=op.rule_source("samples"),
            fix="give the operator's own arguments, in order",
        ) from error
    return Sample(op._schema, tuple(values))


# -- memory -------------------------------------------------------------------


def array_of(t: Tensor) -> Array:
    """Give the NumPy array of a tensor, whether it requires grad or not."""
    found: Array = t.numpy(force=True)
    return found


def owner_of(array: Array) -> Array:
    """Give the array that owns the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def copy_array(array: Array, owners: dict[int, Array]) -> Array:
    """Copy an array with all the memory that it is a view of.

    Args:
        array: to copy.
        owners: the copies so far, by the identity of what owned them.
    """
    owner = owner_of(array)
    made = owners.get(id(owner))
    if owner is array:
        if made is None:
            made = owners[id(owner)] = copy_owner(owner)
        return made
    dense = _dense(owner)
    if dense is None:
        return array.copy(order="K")
    if made is None:
        made = owners[id(owner)] = copy_owner(owner)
    raw = _dense(made)
    assert raw is not None
    offset = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    if not array.size:
        offset = 0
    return np.ndarray(array.shape, array.dtype, raw, offset, array.strides)


def copy_owner(owner: Array) -> Array:
    """Copy an array, and how it lies in memory if it has no holes."""
    made = owner.copy(order="K")
    return made if made.strides == owner.strides or _dense(owner) is None else owner.copy()


def _dense(array: Array) -> Array | None:
    """Give an array's axes in the order of its memory, if the memory has no holes."""
    if array.flags.c_contiguous:
        return array
    order = np.argsort([-s for s in array.strides], kind="stable")
    turned = array.transpose(order)
    return turned if turned.flags.c_contiguous else None
