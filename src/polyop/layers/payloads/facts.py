"""What is known of a call before it: the library of its arrays, and the metas of its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from polyop import tree
from polyop.dispatch.operator import OpOverload
from polyop.errors import ArgumentError, PolyopError
from polyop.layers.payloads.plan import Plan
from polyop.payloads.held import Held
from polyop.payloads.library import Library
from polyop.tensor.meta import META_SPACE, Meta, MetaSpace, meta_of
from polyop.tensor.tensor import Tensor, of_meta

Fn = Callable[..., Any]


def tensors(value: Any) -> list[Tensor]:
    """Give the tensors of an argument, records included."""
    if isinstance(value, Tensor):
        return [value]
    if value.__class__ in _PLAIN or isinstance(value, np.dtype):
        return []
    return [t for t in tree.leaves(value) if isinstance(t, Tensor)]


def mapped(value: Any, fn: Fn) -> Any:
    """Put something else in the place of each tensor of an argument."""
    if isinstance(value, Tensor):
        return fn(value)
    if value.__class__ in {list, tuple}:
        return value.__class__([mapped(v, fn) for v in value])
    return value


# -- the library ------------------------------------------------------------------------


def library_in(op: OpOverload, args: Sequence[Any]) -> tuple[Library, Any]:
    """Give the library of a call's arrays, and one of them.

    Raises:
        ArgumentError: there are two libraries, or a tensor without an array.
    """
    first: tuple[str, Held] | None = None
    for argument, value in zip(op._schema.arguments, args, strict=True):
        for t in tensors(value):
            held = t.payload
            if held.__class__ is np.ndarray:
                continue
            if held.__class__ is not Held:
                _no_array(op, argument.name, t)
            if first is None:
                first = argument.name, held
            elif held.library is not first[1].library:
                _two_libraries(op, first, (argument.name, held))
    assert first is not None
    return first[1].library, first[1].array


def _two_libraries(op: OpOverload, a: tuple[str, Held], b: tuple[str, Held]) -> NoReturn:
    raise ArgumentError(
        f"{op.name()} got arrays of two libraries",
        op=op._schema,
        argument=f"{a[0]}, {b[0]}",
        declared="one library beside NumPy",
        seen=f"{a[0]}: {a[1]!r}; {b[0]}: {b[1]!r}",
        fix="give the data of one as NumPy's array, which goes with any: "
        f"polyop.from_array({b[0]}).numpy()",
    )


def _no_array(op: OpOverload, name: str, t: Tensor) -> NoReturn:
    raise ArgumentError(
        f"{op.name()} got a tensor without data beside an array of another library",
        op=op._schema,
        argument=name,
        seen=repr(t)[:120],
        fix="convert the array with FakeTensorMode.from_tensor, or move both to one device",
    )


# -- the results ------------------------------------------------------------------------


class Loose(MetaSpace):
    """A space of metas whose sizes are another library's symbols, which may have no hash."""

    def meta(self, shape: Any, dtype: Any, strides: Any = None, device: Any = None) -> Meta:
        """Make a meta; none is remembered."""
        return Meta(shape, dtype, strides, device, self)


def described(found: Plan, args: Sequence[Any]) -> Any:
    """Give the metas of the results, which are remembered; None if they cannot be known before."""
    if found.describe is None:
        return None
    key: Any = None
    try:
        key = tuple([_key(value) for value in args])
        return found.known[key]
    except (KeyError, TypeError):  # the latter of a size that is a symbol, or what has no hash
        pass
    sizes = [n.__class__ for value in args for t in tensors(value) for n in t.payload.shape]
    space = META_SPACE if all(kind is int for kind in sizes) else Loose()
    try:
        made = found.describe(space, [fact(value, space) for value in args])
    except RuntimeError as error:
        if space is META_SPACE or isinstance(error, PolyopError):
            raise
        # A library cannot compare sizes that depend on data: all is taken to lie in order.
        made = found.describe(space, [fact(value, space, in_order=True) for value in args])
    if key is not None:
        if len(found.known) >= MOST:
            found.known.clear()
        found.known[key] = made
    return made


#: The fake rule's answers are forgotten when there are so many.
MOST = 1 << 12
_PLAIN = frozenset({int, float, complex, bool, str, type(None), np.dtype})


def _key(value: Any) -> Any:
    """Give the facts of an argument, with a hash.

    Raises:
        TypeError: it has none.
    """
    kind = value.__class__
    if kind is Tensor:
        payload = value.payload
        if payload.__class__ is Held:
            return payload.key
        if payload.__class__ is np.ndarray:
            return payload.shape, payload.dtype, payload.strides
    elif kind is list or kind is tuple:
        return tuple([_key(v) for v in value])
    elif kind in _PLAIN or isinstance(value, np.dtype):
        return kind, value
    raise TypeError


def fact(value: Any, space: MetaSpace, *, in_order: bool = False) -> Any:
    """Put tensors without data in the place of an argument's.

    Args:
        value: the argument.
        space: of the metas.
        in_order: whether all elements are taken to lie in order.
    """

    def one(t: Tensor) -> Tensor:
        held = t.payload
        if held.__class__ is not Held:
            return of_meta(meta_of(t, space))
        known = not in_order and (space is META_SPACE or held.library.writes)
        laid_out = held.laid_out if known else None
        return of_meta(space.meta(held.shape, held.dtype, laid_out, held.device))

    return mapped(list(value) if value.__class__ is tuple else value, one)
